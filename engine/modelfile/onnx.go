package modelfile

import (
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/graph"
	"github.com/pellucid/pellucid/engine/onnx"
)

// readONNX is apart from the other readers because it alone looks beside the
// model: an ONNX file may keep its weights in files of dir.
func readONNX(from source) (engine.Model, error) {
	limit := from.limit
	if limit <= 0 {
		limit = graph.DefaultHeld
	}
	if from.taken {
		return onnx.Take(from.data, from.dir, limit)
	}
	return onnx.ReadWithin(from.data, from.dir, limit)
}
