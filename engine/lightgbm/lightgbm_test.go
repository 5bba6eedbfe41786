package lightgbm

import (
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/enginetest"
)

// tolerance is relative to max(1, |expected|).
const tolerance = 1e-12

func open(t *testing.T, path string) engine.Model {
	t.Helper()
	return enginetest.Open(t, path, Read)
}

// TestOracle holds every model of testdata against what LightGBM itself said.
func TestOracle(t *testing.T) { enginetest.TestLibrary(t, "testdata", Read, tolerance) }
