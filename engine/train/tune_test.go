package train

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine/onnx"
)

// TestTuneLeavesTheRest fits one and two layers anew, and looks at every weight.
func TestTuneLeavesTheRest(t *testing.T) {
	rows := readRows(t)
	f, err := Fit(t.Context(), columnsOf(t, rows, numbers...), labelsOf(t, rows, "group", false), Config{Hidden: []int{8, 6}, Epochs: 5})
	if err != nil {
		t.Fatal(err)
	}
	before, err := onnx.ReadGraph(f.Model, "")
	if err != nil {
		t.Fatal(err)
	}
	for layers := 1; layers <= 3; layers++ {
		n, err := Open(f.Model, "")
		if err != nil {
			t.Fatal(err)
		}
		tuned, err := n.Tune(t.Context(), inputs(t, n.Info, rows), labelsOf(t, rows, "group", true), Config{Layers: layers, Hold: 0.2, L2: 0.01})
		if err != nil {
			t.Fatal(err)
		}
		after, err := onnx.ReadGraph(tuned.Model, "")
		if err != nil {
			t.Fatal(err)
		}
		changed := 0
		for name, v := range before.Constants {
			if same := reflect.DeepEqual(v, after.Constants[name]); same == slices.Contains(tuned.Layers, name) {
				t.Errorf("%d layers: %q is the same: %t", layers, name, same)
			} else if !same {
				changed++
			}
		}
		if changed != 2*layers || tuned.HeldLoss >= tuned.HeldBefore || (tuned.Optimiser == LBFGS) != (layers == 1) {
			t.Errorf("%d layers: %d weights changed, loss %v before and %v after, by %s", layers, changed, tuned.HeldBefore, tuned.HeldLoss, tuned.Optimiser)
		}
	}
}

// TestTuneRefuses names what does not fit the network.
func TestTuneRefuses(t *testing.T) {
	rows := readRows(t)
	f, err := Fit(t.Context(), columnsOf(t, rows, numbers...), labelsOf(t, rows, "group", false), Config{Hidden: []int{4}, Epochs: 1})
	if err != nil {
		t.Fatal(err)
	}
	for say, c := range map[string]struct {
		label string
		cfg   Config
	}{
		"the labels are numbers": {"value", Config{}},
		"has 3 margins":          {"label", Config{}},
		"the network has 2":      {"group", Config{Layers: 3}},
		"hidden ones cannot":     {"group", Config{Hidden: []int{3}}},
		"not logistic":           {"group", Config{Loss: Logistic}},
	} {
		n, err := Open(f.Model, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Tune(t.Context(), inputs(t, n.Info, rows), labelsOf(t, rows, c.label, false), c.cfg); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%v is not %q", err, say)
		}
	}
	if _, err := Open([]byte("no model"), ""); err == nil {
		t.Error("what is no model was opened")
	}
}
