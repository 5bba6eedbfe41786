//go:build !race

package graph

import (
	"runtime/debug"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestOperatorsAllocateResultsOnly is TestRunsAllocateResultsOnly of operators alone, over
// few elements and over more than scratch keeps of a list.
func TestOperatorsAllocateResultsOnly(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for name, g := range operatorGraphs(t) {
		s := newAllocating(t, g, 1)
		for _, rows := range []int{16, 1200} {
			run := s.over(rows)
			run() // a list that was not long enough is made anew once more
			count := testing.AllocsPerRun(5, run)
			if most := testing.AllocsPerRun(5, s.copyResults); count > most {
				t.Errorf("%s over %d rows: %v objects a run, its results are %v", name, rows, count, most)
			}
		}
	}
}

func operatorGraphs(t *testing.T) map[string]*plainGraph {
	graphs := map[string]*plainGraph{}
	// of begins a graph whose value v is x, as numbers from -100 to 100 of a type.
	of := func(name string, d int64) *plainGraph {
		g := newPlainGraph(t)
		g.node("Mul", "s", nil, "x", wholeOfFloats(g, "hundred", 40))
		g.node("Cast", "v", Attrs{"to": {Kind: AttrInt, Int: d}}, "s")
		graphs[name] = g
		return g
	}
	const floats, bytes, shorts, wholes, booleans, wide = 1, 2, 5, 7, 9, 11
	axis := func(n int64) Attrs { return Attrs{"axis": {Kind: AttrInt, Int: n}} }
	for name, d := range map[string]int64{"floats": floats, "bytes": bytes, "shorts": shorts, "wholes": wholes, "wide": wide} {
		for _, op := range []string{"Add", "Max", "Less", "GreaterOrEqual", "Equal", "Pow"} {
			of(op+" of "+name, d).node(op, "y", nil, "v", "v")
		}
		g := of("NonZero of "+name, d)
		g.node("NonZero", "y", nil, "v")
		for _, op := range []string{"ReduceMax", "ReduceSumSquare", "ReduceProd"} {
			of(op+" of "+name, d).node(op, "y", Attrs{"axes": ints(0)}, "v")
		}
		g = of("CumSum of "+name, d)
		g.node("CumSum", "y", nil, "v", wholeOf(g, "axis", 1))
		g = of("TopK of "+name, d)
		g.node("TopK", "y", axis(1), "v", wholeOf(g, "k", 3))
		of("Unique of "+name, d).node("Unique", "y", nil, "v")
		of("rows of "+name, d).node("Unique", "y", axis(0), "v")
		g = of("Tile of "+name, d)
		g.node("Tile", "y", nil, "v", wholeOf(g, "repeats", 2, 3))
		g = of("Where of "+name, d)
		g.node("Equal", "c", nil, "s", "hundred")
		g.node("Where", "y", nil, "c", "v", "v")
		g = of("Compress of "+name, d)
		g.node("Cast", "b", Attrs{"to": {Kind: AttrInt, Int: booleans}}, "x")
		g.node("Compress", "y", nil, "v", "b")
		of("elements of "+name, d).scattered("GatherElements", "y", nil, axis(1))
		g = of("scattered of "+name, d)
		g.scattered("ScatterElements", "y", []string{"v"}, Attrs{"axis": {Kind: AttrInt, Int: 1}, "reduction": {Kind: AttrString, String: "add"}})
		g = of("replaced of "+name, d)
		g.scattered("ScatterElements", "y", []string{"v"}, axis(1))
	}
	g := of("exponents", floats)
	g.node("Pow", "y", nil, "v", wholeOfFloats(g, "p", 3))
	g = of("remainders", shorts)
	g.node("Mod", "y", nil, "v", constantOf(g, "seven", []int16{7}, 1))
	g = of("clipped", floats)
	g.node("ReduceMax", "high", Attrs{"keepdims": {Kind: AttrInt}}, "v")
	g.node("Clip", "y", nil, "v", constantOf(g, "low", []float32{-3}), "high")
	g = of("one hot", wholes)
	g.node("OneHot", "y", nil, "v", constantOf(g, "depth", []int64{9}), wholeOfFloats(g, "values", 0, 1))
	of("logarithms of sums", floats).node("ReduceLogSumExp", "y", Attrs{"axes": ints(0)}, "v")
	of("lines", floats).node("LpNormalization", "y", axis(0), "v")
	of("lines of half precision", 10).node("Softmax", "y", axis(1), "v")
	g = of("half precision", 10)
	g.node("Add", "y", nil, "v", "v")
	g = of("range", wholes)
	g.node("Shape", "n", nil, "v")
	g.node("ReduceProd", "r", Attrs{"keepdims": {Kind: AttrInt}}, "n")
	g.node("Range", "y", nil, constantOf(g, "from", []int64{0}), "r", constantOf(g, "by", []int64{1}))
	for _, norm := range []string{"MAX", "L1", "L2"} {
		of("Normalizer "+norm, wide).ml("Normalizer", Attrs{"norm": {Kind: AttrString, String: norm}})
	}
	of("Binarizer", wide).ml("Binarizer", Attrs{"threshold": {Kind: AttrFloat}})
	of("Scaler", wholes).ml("Scaler", Attrs{"offset": {Kind: AttrFloats, Floats: []float32{2}}, "scale": {Kind: AttrFloats, Floats: []float32{3}}})
	of("Imputer", wide).ml("Imputer", Attrs{"imputed_value_floats": {Kind: AttrFloats, Floats: []float32{2}}, "replaced_value_float": {Kind: AttrFloat}})
	of("LabelEncoder", wholes).ml("LabelEncoder", Attrs{"keys_int64s": ints(1, 2, 3), "values_floats": {Kind: AttrFloats, Floats: []float32{4, 5, 6}}})
	for name, d := range map[string]int64{"floats": floats, "wide": wide} {
		of("classes of "+name, d).machine(3)
	}
	return graphs
}

// machine is a classifier of so many classes by scores that are linear, and one by support
// vectors with probabilities.
func (g *plainGraph) machine(classes int) {
	list := func(n int) Attr {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(g.r.NormFloat64() / 32)
		}
		return Attr{Kind: AttrFloats, Floats: v}
	}
	add := func(op string, attrs Attrs, in string, out ...string) {
		g.Nodes = append(g.Nodes, &Node{Domain: DomainLocal, Op: op, Version: 1, Inputs: []string{in}, Outputs: out, Attrs: attrs})
	}
	count, labels := Attr{Kind: AttrInt, Int: int64(classes)}, ints(7, 8, 9)
	add(OpLinearScores, Attrs{"coefficients": list(32 * classes), "targets": count}, "v", "linear")
	add(OpClassifierOutput, Attrs{"classlabels_ints": labels, "post_transform": {Kind: AttrString, String: "SOFTMAX"}}, "linear", "l", "y")
	add(OpSVMKernel, Attrs{"vectors": {Kind: AttrInt, Int: 6}, "support_vectors": list(6 * 32), "kernel_type": {Kind: AttrString, String: "RBF"}, "kernel_params": list(3)}, "v", "k")
	add(OpSVMPairs, Attrs{"vectors_per_class": ints(2, 2, 2), "coefficients": list(2 * 6), "rho": list(3)}, "k", "pairs")
	add(OpSVMOutput, Attrs{"classlabels_ints": labels, "prob_a": list(3), "prob_b": list(3)}, "pairs", "sl", "sz")
	g.Outputs = []string{"y", "sl", "sz"}
}

func (g *plainGraph) ml(op string, attrs Attrs) {
	g.Nodes = append(g.Nodes, &Node{Domain: DomainML, Op: op, Version: 1, Inputs: []string{"v"}, Outputs: []string{"y"}, Attrs: attrs})
	if op == "LabelEncoder" {
		g.Nodes[len(g.Nodes)-1].Version = 2
	}
}

// scattered is a node over v with places in its rows of 32, and what follows them.
func (g *plainGraph) scattered(op, out string, rest []string, attrs Attrs) {
	g.node("Abs", "m", nil, "s")
	g.node("Cast", "w", Attrs{"to": {Kind: AttrInt, Int: 7}}, "m")
	g.node("Mod", "i", nil, "w", wholeOf(g, "columns", 32))
	g.node(op, out, attrs, append([]string{"v", "i"}, rest...)...)
}

func constantOf[T engine.Element](g *plainGraph, name string, v []T, shape ...int) string {
	t, err := engine.Of(v, shape...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.Constants[name] = t
	return name
}
