package modelfile

import (
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/onnx"
)

// readONNX is apart from the other readers because it alone looks beside the
// model: an ONNX file may keep its weights in files of dir.
func readONNX(data []byte, dir string, limit int64) (engine.Model, error) {
	if limit <= 0 {
		return onnx.Read(data, dir)
	}
	return onnx.ReadWithin(data, dir, limit)
}
