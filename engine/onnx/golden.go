package onnx

import (
	"fmt"

	"github.com/pellucid/pellucid/engine"
)

// ReadTensor reads a file that holds one TensorProto, as ONNX's test_data_set_*
// folders do, and returns the tensor with the name it carries (often empty).
func ReadTensor(data []byte) (name string, t *engine.Tensor, err error) {
	p, err := decodeTensor(data)
	if err != nil {
		return "", nil, fmt.Errorf("read tensor: %w", err)
	}
	t, err = p.tensor("")
	if err != nil {
		return "", nil, fmt.Errorf("read tensor: %w", err)
	}
	return p.name, t, nil
}
