package xgboost

import (
	"testing"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/enginetest"
)

// tolerance is relative to max(1, |expected|); sums are float32.
const tolerance = 1e-6

func open(t *testing.T, path string) engine.Model {
	t.Helper()
	return enginetest.Open(t, path, Read)
}

// TestOracle holds every model of testdata against what XGBoost itself said.
func TestOracle(t *testing.T) { enginetest.TestLibrary(t, "testdata", Read, tolerance) }
