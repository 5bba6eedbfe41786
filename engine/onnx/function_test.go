package onnx

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// call is a node of the domain "own".
func call(op string, in []string, out string, attrs ...[]byte) []byte {
	b := message(2, out, 4, op, 7, "own")
	for _, name := range in {
		b = append(b, message(1, name)...)
	}
	for _, a := range attrs {
		b = append(b, message(5, a)...)
	}
	return b
}

// plain is a node of the default domain.
func plain(op string, in []string, out string, attrs ...[]byte) []byte {
	b := message(2, out, 4, op)
	for _, name := range in {
		b = append(b, message(1, name)...)
	}
	for _, a := range attrs {
		b = append(b, message(5, a)...)
	}
	return b
}

func function(name string, in, out []string, nodes ...[]byte) []byte {
	b := message(1, name, 10, "own", 9, message(1, "", 2, 17), 9, message(1, "own", 2, 1))
	for _, n := range in {
		b = append(b, message(4, n)...)
	}
	for _, n := range out {
		b = append(b, message(5, n)...)
	}
	for _, n := range nodes {
		b = append(b, message(7, n)...)
	}
	return b
}

func withFunctions(graph []byte, functions ...[]byte) []byte {
	b := message(1, 8, 8, message(1, "", 2, 17), 8, message(1, "own", 2, 1), 7, graph)
	for _, f := range functions {
		b = append(b, message(25, f)...)
	}
	return b
}

// TestFunctions: calls within calls, parameters with and without a default, a branch
// that reads what the function makes, an output that is an input.
func TestFunctions(t *testing.T) {
	ref := func(name, param string) []byte { return message(1, name, 20, 2, 21, param) }
	number := func(name string, v int) []byte { return message(1, name, 20, 2, 3, v) }
	axes := function("Sum", []string{"a", "b"}, []string{"s", "a"}, plain("Add", []string{"a", "b"}, "t"), plain("Cast", []string{"t"}, "s", ref("to", "kind")))
	axes = append(axes, message(11, number("kind", 1))...)
	branch := func(name, from, out string) []byte {
		return message(1, name, 20, 5, 6, message(1, plain("Neg", []string{from}, "n"), 1, plain("Mul", []string{"n", "x"}, out), 12, message(1, out)))
	}
	outer := function("Twice", []string{"x", "c"}, []string{"y"},
		call("Sum", []string{"x", "x"}, "t"), // t = 2x
		plain("If", []string{"c"}, "y", branch("then_branch", "t", "u"), branch("else_branch", "x", "v")))
	cond := message(1, "c", 2, message(1, message(1, 9, 2, nil)))
	graph := message(11, floatValue("x", 2), 11, cond, 1, call("Twice", []string{"x", "c"}, "t"), 1, call("Twice", []string{"t", "c"}, "y"),
		1, call("Sum", []string{"x", "x"}, "z", number("kind", 7)), 12, floatValue("y", 2), 12, message(1, "z"))
	m, err := Read(withFunctions(graph, axes, outer), "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for taken, want := range map[bool]string{true: "[-8 -128]", false: "[-1 -16]"} {
		in := engine.Values{{Name: "x", Tensor: must(engine.Of([]float32{1, 2}, 2))}, {Name: "c", Tensor: must(engine.Of([]bool{taken}))}}
		out, err := s.Run(t.Context(), in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(engine.Data[float32](out[0].Tensor)); got != want {
			t.Errorf("%v: %s, want %s", taken, got, want)
		}
		if got := engine.Data[int64](out[1].Tensor); !slices.Equal(got, []int64{2, 4}) {
			t.Errorf("z is %v", got)
		}
	}
}

// TestFunctionInBranch: a branch within a function calls another function and makes a
// value of the name that the caller's graph gives its input; so does a constant of it.
func TestFunctionInBranch(t *testing.T) {
	branch := func(name string, parts ...any) []byte { return message(1, name, 20, 5, 6, message(parts...)) }
	one := message(2, 1, 8, "X", 9, []byte{0, 0, 128, 63}) // of no dimensions
	minus := function("Minus", []string{"a"}, []string{"o"}, plain("Abs", []string{"a"}, "u"), plain("Neg", []string{"u"}, "o"))
	either := function("Either", []string{"x", "c"}, []string{"k"}, plain("If", []string{"c"}, "k",
		branch("then_branch", 1, call("Minus", []string{"x"}, "X"), 12, message(1, "X")),
		branch("else_branch", 5, one, 1, plain("Add", []string{"x", "X"}, "y"), 12, message(1, "y"))))
	cond := message(1, "c", 2, message(1, message(1, 9, 2, nil)))
	graph := message(11, floatValue("X", 2), 11, cond, 1, call("Either", []string{"X", "c"}, "b"), 1, call("Either", []string{"b", "c"}, "y"), 12, floatValue("y", 2))
	m, err := Read(withFunctions(graph, minus, either), "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for taken, want := range map[bool][]float32{true: {-1, -2}, false: {3, 4}} {
		in := engine.Values{{Name: "X", Tensor: must(engine.Of([]float32{1, 2}, 2))}, {Name: "c", Tensor: must(engine.Of([]bool{taken}))}}
		out, err := s.Run(t.Context(), in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := engine.Data[float32](out[0].Tensor); !slices.Equal(got, want) {
			t.Errorf("%v: %v, want %v", taken, got, want)
		}
	}
}

// TestHostileFunctions: what calls itself, or doubles with each call, is refused.
func TestHostileFunctions(t *testing.T) {
	graph := message(11, floatValue("x", 2), 1, call("F0", []string{"x"}, "y"), 12, floatValue("y", 2))
	self := function("F0", []string{"a"}, []string{"b"}, call("F1", []string{"a"}, "b"))
	back := function("F1", []string{"a"}, []string{"b"}, call("F0", []string{"a"}, "b"))
	if _, err := Read(withFunctions(graph, self, back), ""); !errors.Is(err, engine.ErrCorrupt) || !strings.Contains(err.Error(), "itself") {
		t.Errorf("error %v", err)
	}
	var doubling [][]byte
	for i := range 40 {
		next := fmt.Sprintf("F%d", i+1)
		doubling = append(doubling, function(fmt.Sprintf("F%d", i), []string{"a"}, []string{"b"}, call(next, []string{"a"}, "t"), call(next, []string{"t"}, "b")))
	}
	doubling = append(doubling, function("F40", []string{"a"}, []string{"b"}, plain("Relu", []string{"a"}, "b")))
	if _, err := Read(withFunctions(graph, doubling...), ""); !errors.Is(err, engine.ErrTooLarge) {
		t.Errorf("error %v, want ErrTooLarge", err)
	}
}

// TestLoopsAreBounded: a loop without an end, and one whose value doubles each turn.
func TestLoopsAreBounded(t *testing.T) {
	value := func(name string) []byte { return message(1, name) }
	body := message(1, "body", 20, 5, 6, message(11, value("i"), 11, value("c"), 11, value("v"), 12, value("c"), 12, value("w"),
		1, plain("Concat", []string{"v", "v"}, "w", message(1, "axis", 20, 2, 3, 0))))
	endless := message(1, "body", 20, 5, 6, message(11, value("i"), 11, value("c"), 11, value("v"), 12, value("c"), 12, value("v")))
	for _, b := range [][]byte{body, endless} {
		m, err := Read(modelOf(11, floatValue("x", 2), 1, plain("Loop", []string{"", "", "x"}, "y", b), 12, floatValue("y")), "")
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.NewSession(engine.SessionOptions{MaxBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		in := engine.Values{{Name: "x", Tensor: must(engine.Of([]float32{1, 2}, 2))}}
		if _, err := s.Run(t.Context(), in, nil); !errors.Is(err, engine.ErrTooLarge) {
			t.Errorf("error %v, want ErrTooLarge", err)
		}
	}
}

// TestResultsAreTheCallersToKeep writes over what a model gave, which may be a view of
// an initialiser or of an input, at the top or out of a branch.
func TestResultsAreTheCallersToKeep(t *testing.T) {
	ints := func(name string, v ...byte) []byte {
		return message(1, len(v), 2, 7, 8, name, 7, v)
	}
	weights := message(1, 2, 2, 1, 8, "w", 9, []byte{0, 0, 128, 63, 0, 0, 0, 64}) // 1 and 2
	branch := func(name, from, out string) []byte {
		return message(1, name, 20, 5, 6, message(1, plain("Reshape", []string{from, "s"}, out), 12, message(1, out)))
	}
	cond := message(1, "c", 2, message(1, message(1, 9, 2, nil)))
	shape := message(1, "s", 2, message(1, message(1, 7, 2, message(1, message(1, 2))))) // known to a run only
	graph := message(5, weights, 5, ints("flat", 2), 11, floatValue("x", 2), 11, cond, 11, shape,
		1, plain("Reshape", []string{"w", "s"}, "v"), 1, plain("Reshape", []string{"v", "flat"}, "vv"), 1, plain("Reshape", []string{"x", "s"}, "u"),
		1, plain("If", []string{"c"}, "i", branch("then_branch", "w", "a"), branch("else_branch", "x", "b")),
		12, message(1, "v"), 12, message(1, "vv"), 12, message(1, "u"), 12, message(1, "i"))
	m, err := Read(withFunctions(graph), "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewSession(engine.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		in := engine.Values{
			{Name: "x", Tensor: must(engine.Of([]float32{1, 2}, 2))},
			{Name: "c", Tensor: must(engine.Of([]bool{true}))},
			{Name: "s", Tensor: must(engine.Of([]int64{2, 1}, 2))},
		}
		out, err := s.Run(t.Context(), in, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range out {
			v := engine.Data[float32](o.Tensor)
			if !slices.Equal(v, []float32{1, 2}) {
				t.Errorf("%s: %v, want 1 and 2", o.Name, v)
			}
			clear(v)
		}
		if v := engine.Data[float32](in[0].Tensor); v[0] != 1 {
			t.Error("an input was given back as a result")
		}
	}
}
