package onnx

import (
	"errors"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
	"google.golang.org/protobuf/encoding/protowire"
)

// TestMapsAreNamed: a sequence of maps, which runtimes give for ZipMap, is said to be one,
// and is not taken for a damaged tensor.
func TestMapsAreNamed(t *testing.T) {
	b := appendText(nil, 1, "output_probability")
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), 4)
	b = appendText(b, 6, "")
	_, _, err := ReadValue(b, engine.Float32)
	var u *engine.UnsupportedError
	if !errors.As(err, &u) || !strings.Contains(err.Error(), "sequence of maps") {
		t.Errorf("error %v", err)
	}
}
