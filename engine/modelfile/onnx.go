package modelfile

import (
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

// readONNX is apart from the other readers because it alone looks beside the
// model: an ONNX file may keep its weights in files of dir.
func readONNX(data []byte, dir string) (engine.Model, error) { return onnx.Read(data, dir) }
