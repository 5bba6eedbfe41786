package graph

import (
	"fmt"
	"math"

	"github.com/pellucid/pellucid/engine"
)

// The local operators, which engine/onnx makes of ai.onnx.ml's classifiers and
// regressors so that the margins have a name of their own:
//
//	LinearScores(X) -> margin           attributes of LinearClassifier/LinearRegressor
//	TreeScores(X) -> margin             attributes of TreeEnsemble{Classifier,Regressor}
//	PostTransform(margin) -> Z          post_transform
//	ClassifierOutput(margin) -> Y, Z    labels, post_transform, second_class
//
// Margins have the precision of the input, what is made of them is float32: the
// definitions of these operators say so.
const (
	OpLinearScores     = "LinearScores"
	OpTreeScores       = "TreeScores"
	OpPostTransform    = "PostTransform"
	OpClassifierOutput = "ClassifierOutput"
)

// The ways a classifier of two labels gets its second class from a single score, and
// its label (attribute second_class of ClassifierOutput), as onnxruntime does it: with
// all weights positive the score is a probability, and the label is the second where it
// is above a half, else where it is above 0, whatever follows. Of a single score only
// LOGISTIC is taken. With SecondOwn and SecondOwnPositive the second class has a score
// of its own, which the label is by in the same way; SecondNone takes the largest.
const (
	SecondNone        = ""
	SecondPositive    = "positive"
	SecondMixed       = "mixed"
	SecondOwn         = "own"
	SecondOwnPositive = "own positive"
)

// matrix returns the rows and columns of a [N, M] or [M] tensor.
func matrix(t *engine.Tensor) (rows, cols int, err error) {
	switch s := t.Shape(); len(s) {
	case 1:
		return 1, s[0], nil
	case 2:
		return s[0], s[1], nil
	}
	return 0, 0, fmt.Errorf("input of shape %v, expected a matrix", t.Shape())
}

// inFloat runs f on the input in its own float type; integers become float32.
func inFloat(x *Exec, t *engine.Tensor, f32 func(*engine.Tensor) (*engine.Tensor, error), f64 func(*engine.Tensor) (*engine.Tensor, error)) (*engine.Tensor, error) {
	if t.DType() == engine.Float64 {
		return f64(t)
	}
	w, err := castTensor(x, t, engine.Float32, true)
	if err != nil {
		return nil, err
	}
	return f32(w)
}

func widen32(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, e := range v {
		out[i] = float64(e)
	}
	return out
}

// LinearParams are the coefficients of a LinearScores node: [outputs, features].
type LinearParams struct {
	Outputs, Features int
	Coefs, Bias       []float64
}

// NewLinearParams reads and checks the node's attributes.
func NewLinearParams(n *Node) (*LinearParams, error) {
	coefs, bias := n.Attrs["coefficients"].Floats, n.Attrs["intercepts"].Floats
	outs := int(n.Attrs["targets"].Int)
	if outs < 1 || len(coefs) == 0 || len(coefs)%outs != 0 || len(bias) != 0 && len(bias) != outs {
		return nil, n.corrupt("%d coefficients and %d intercepts for %d outputs", len(coefs), len(bias), outs)
	}
	p := &LinearParams{Outputs: outs, Features: len(coefs) / outs, Coefs: widen32(coefs), Bias: widen32(bias)}
	if len(bias) == 0 {
		p.Bias = make([]float64, outs)
	}
	return p, nil
}

func buildLinearScores(b *builder) (Kernel, error) {
	b.attrs.ignore("coefficients", "intercepts", "targets")
	p, err := NewLinearParams(b.node)
	if err != nil {
		return nil, err
	}
	b.result = []engine.DType{floatResult(b.inType(0))}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		return x.one(inFloat(x, in[0],
			func(t *engine.Tensor) (*engine.Tensor, error) { return linear[float32](x, t, p) },
			func(t *engine.Tensor) (*engine.Tensor, error) { return linear[float64](x, t, p) }))
	}, nil
}

func floatResult(d engine.DType) engine.DType {
	if d == engine.Float64 {
		return d
	}
	return engine.Float32
}

func linear[T float](x *Exec, t *engine.Tensor, p *LinearParams) (*engine.Tensor, error) {
	rows, cols, err := matrix(t)
	if err != nil {
		return nil, err
	}
	if cols != p.Features {
		return nil, fmt.Errorf("%d features for a model of %d", cols, p.Features)
	}
	o, out, err := newOf[T](x, rows, p.Outputs)
	if err != nil {
		return nil, err
	}
	src := engine.Data[T](t)
	for r := range rows {
		for k := range p.Outputs {
			sum := p.Bias[k]
			for j, v := range src[r*cols : (r+1)*cols] {
				sum += float64(v) * p.Coefs[k*cols+j]
			}
			out[r*p.Outputs+k] = T(sum)
		}
	}
	return o, nil
}

// transform applies ai.onnx.ml's post_transform to each row of scores, as many as room is for.
func transform[T float](kind string, v, room []T) {
	k := len(room)
	for r := 0; r+k <= len(v); r += k {
		row := v[r : r+k]
		switch kind {
		case "LOGISTIC":
			for i, s := range row {
				row[i] = T(sigmoid(float64(s)))
			}
		case "SOFTMAX":
			copy(room, row)
			softmaxLine(row, room, k, 1, false)
		case "SOFTMAX_ZERO":
			softmaxZero(row)
		case "PROBIT":
			for i, s := range row {
				row[i] = T(math.Sqrt2 * math.Erfinv(2*float64(s)-1))
			}
		}
	}
}

// softmaxZero leaves scores of 0 alone.
func softmaxZero[T float](row []T) {
	top, sum := math.Inf(-1), 0.0
	for _, s := range row {
		top = max(top, float64(s))
	}
	for _, s := range row {
		if s != 0 {
			sum += math.Exp(float64(s) - top)
		}
	}
	for i, s := range row {
		if s != 0 {
			row[i] = T(math.Exp(float64(s)-top) / sum)
		}
	}
}

func readTransform(b *builder) (string, error) {
	switch kind := b.attrs.string("post_transform", "NONE"); kind {
	case "NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT":
		return kind, nil
	default:
		return "", b.node.unsupported("post_transform %q", kind)
	}
}

func buildPostTransform(b *builder) (Kernel, error) {
	kind, err := readTransform(b)
	b.result = []engine.DType{engine.Float32}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		o, err := castTensor(x, in[0], in[0].DType(), false)
		if err != nil {
			return nil, err
		}
		k := in[0].RowLen()
		if d := engine.Data[float32](o); d != nil && k > 0 {
			transform(kind, d, roomOf[float32](x, k))
		} else if d := engine.Data[float64](o); d != nil && k > 0 {
			transform(kind, d, roomOf[float64](x, k))
		}
		return x.one(castTensor(x, o, engine.Float32, true))
	}, err
}

// labels are a classifier's, integers or strings.
type labels struct {
	ints []int64
	text []string
}

func readLabels(b *builder) (labels, error) {
	l := labels{ints: b.attrs.ints("classlabels_ints"), text: b.attrs.strings("classlabels_strings")}
	if t := b.attrs.ints("classlabels_int64s"); t != nil {
		l.ints = t
	}
	if (l.ints == nil) == (l.text == nil) {
		return l, b.node.corrupt("needs integer labels or string labels")
	}
	return l, nil
}

func (l *labels) dtype() engine.DType {
	if l.ints != nil {
		return engine.Int64
	}
	return engine.String
}

func (l *labels) len() int { return max(len(l.ints), len(l.text)) }

// pick returns the tensor of the labels of the chosen classes.
func (l *labels) pick(x *Exec, chosen []int) (*engine.Tensor, error) {
	t, err := x.New(l.dtype(), len(chosen))
	if err != nil {
		return nil, err
	}
	for i, c := range chosen {
		if l.ints != nil {
			engine.Data[int64](t)[i] = l.ints[c]
		} else {
			engine.Data[string](t)[i] = l.text[c]
		}
	}
	return t, nil
}

func buildClassifierOutput(b *builder) (Kernel, error) {
	l, err := readLabels(b)
	if err != nil {
		return nil, err
	}
	kind, err := readTransform(b)
	if err != nil {
		return nil, err
	}
	second := b.attrs.string("second_class", SecondNone)
	b.result = []engine.DType{l.dtype(), engine.Float32}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		if in[0].DType() == engine.Float64 {
			out, err := classify[float64](x, in[0], &l, kind, second)
			if err == nil {
				out[1], err = castTensor(x, out[1], engine.Float32, true)
			}
			return out, err
		}
		return classify[float32](x, in[0], &l, kind, second)
	}, nil
}

func classify[T float](x *Exec, t *engine.Tensor, l *labels, kind, second string) ([]*engine.Tensor, error) {
	rows, k, err := matrix(t)
	if err != nil {
		return nil, err
	}
	n := l.len()
	if single := second == SecondPositive || second == SecondMixed; !single && k != n || single && k != 1 || second != SecondNone && n != 2 {
		return nil, fmt.Errorf("%d scores for %d classes", k, n)
	}
	z, out, err := newOf[T](x, rows, n)
	if err != nil {
		return nil, err
	}
	src := engine.Data[T](t)
	chosen, room := x.ints(rows), roomOf[T](x, n)
	for r := range rows {
		row := out[r*n : (r+1)*n]
		chosen[r] = classifyRow(row, src[r*k:(r+1)*k], room, kind, second)
	}
	y, err := l.pick(x, chosen)
	return x.pair(y, z), err
}

// classifyRow writes a row of class scores and returns its class; room is for as many.
func classifyRow[T float](row, scores, room []T, kind, second string) int {
	switch s := scores[len(scores)-1]; second {
	case SecondPositive, SecondMixed:
		chosen := above(s, 0)
		row[0], row[1] = -s, s
		if second == SecondPositive {
			chosen = above(s, 0.5)
		}
		switch {
		case kind == "LOGISTIC":
			transform(kind, row, room)
		case second == SecondPositive:
			row[0] = 1 - s
		}
		return chosen
	case SecondOwn, SecondOwnPositive:
		chosen := above(s, 0)
		if second == SecondOwnPositive {
			chosen = above(s, 0.5)
		}
		copy(row, scores)
		transform(kind, row, room)
		return chosen
	}
	copy(row, scores)
	chosen := largest(row)
	transform(kind, row, room)
	return chosen
}

func largest[T float](row []T) int {
	best := 0
	for i, v := range row {
		if v > row[best] {
			best = i
		}
	}
	return best
}

func above[T float](s, t T) int {
	if s > t {
		return 1
	}
	return 0
}

// perColumn reads a parameter that has one value, or one a column.
func perColumn(v []float64, cols int, what string) (func(j int) float64, error) {
	switch len(v) {
	case 1:
		return func(int) float64 { return v[0] }, nil
	case cols:
		return func(j int) float64 { return v[j] }, nil
	}
	return nil, fmt.Errorf("%s has %d values for %d columns", what, len(v), cols)
}

// columnsOf returns the last dimension.
func columnsOf(t *engine.Tensor) int {
	s := t.Shape()
	if len(s) == 0 {
		return 1
	}
	return s[len(s)-1]
}

// columnMap is a kernel that maps each element by its column.
func columnMap(x *Exec, t *engine.Tensor, f func(j int, v float64) float64) (*engine.Tensor, error) {
	cols := columnsOf(t)
	d := floatResult(t.DType())
	o, err := x.New(d, t.Shape()...)
	if err != nil {
		return nil, err
	}
	v, ok := x.float64s(t)
	if !ok {
		return nil, typeError(t)
	}
	if d == engine.Float64 {
		out := engine.Data[float64](o)
		for i := range out {
			out[i] = f(i%cols, v[i])
		}
		return o, nil
	}
	out := engine.Data[float32](o)
	for i := range out {
		out[i] = float32(f(i%cols, v[i]))
	}
	return o, nil
}

// ScalerParams returns the offset and scale of a Scaler node by column.
func ScalerParams(n *Node, cols int) (offset, scale func(j int) float64, err error) {
	get := func(name string, def float64) (func(j int) float64, error) {
		v := widen32(n.Attrs[name].Floats)
		if len(v) == 0 {
			v = []float64{def}
		}
		return perColumn(v, cols, name)
	}
	if offset, err = get("offset", 0); err != nil {
		return nil, nil, err
	}
	scale, err = get("scale", 1)
	return offset, scale, err
}

type scalerParams struct{ offset, scale func(j int) float64 }

func buildScaler(b *builder) (Kernel, error) {
	b.attrs.floats("offset")
	b.attrs.floats("scale")
	b.result = []engine.DType{floatResult(b.inType(0))}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		p := recall[scalerParams](x, in)
		if p == nil {
			p = new(scalerParams)
			var err error
			if p.offset, p.scale, err = ScalerParams(b.node, columnsOf(in[0])); err != nil {
				return nil, err
			}
			remember(x, in, p)
		}
		return x.one(columnMap(x, in[0], func(j int, v float64) float64 { return (v - p.offset(j)) * p.scale(j) }))
	}, nil
}

func buildNormalizer(b *builder) (Kernel, error) {
	norm := b.attrs.string("norm", "MAX")
	if norm != "MAX" && norm != "L1" && norm != "L2" {
		return nil, b.node.unsupported("norm %q", norm)
	}
	b.result = []engine.DType{floatResult(b.inType(0))}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		v, ok := x.float64s(in[0])
		if !ok {
			return nil, typeError(in[0])
		}
		cols := columnsOf(in[0])
		i := 0
		norms := x.wide(in[0].Rows())[:0]
		for at := 0; at+cols <= len(v) && cols > 0; at += cols {
			norms = append(norms, NormOf(norm, v[at:at+cols]))
		}
		return x.one(columnMap(x, in[0], func(_ int, e float64) float64 {
			n := norms[i/cols]
			i++
			return e / n
		}))
	}, nil
}

// NormOf is the number a Normalizer divides a row by; 1 for a row of zeros.
func NormOf(kind string, row []float64) float64 {
	n := 0.0
	for i, v := range row {
		switch {
		case kind == "L1":
			n += math.Abs(v)
		case kind == "L2":
			n += v * v
		case i == 0 || v > n:
			n = v
		}
	}
	if kind == "L2" {
		n = math.Sqrt(n)
	}
	if n == 0 {
		return 1
	}
	return n
}

func buildImputer(b *builder) (Kernel, error) {
	values := widen32(b.attrs.floats("imputed_value_floats"))
	missing := b.attrs.float("replaced_value_float", 0)
	ints := b.attrs.ints("imputed_value_int64s")
	missingInt := int64(b.attrs.int("replaced_value_int64", 0))
	if b.inType(0) == engine.Int64 {
		return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
			return x.one(imputeInts(x, in[0], ints, missingInt))
		}, nil
	}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		value := recall[func(j int) float64](x, in)
		if value == nil {
			f, err := perColumn(values, columnsOf(in[0]), "imputed_value_floats")
			if err != nil {
				return nil, err
			}
			value = &f
			remember(x, in, value)
		}
		return x.one(columnMap(x, in[0], func(j int, v float64) float64 {
			if v == missing || math.IsNaN(v) && math.IsNaN(missing) {
				return (*value)(j)
			}
			return v
		}))
	}, nil
}

func imputeInts(x *Exec, t *engine.Tensor, values []int64, missing int64) (*engine.Tensor, error) {
	cols := columnsOf(t)
	if len(values) != 1 && len(values) != cols {
		return nil, fmt.Errorf("imputed_value_int64s has %d values for %d columns", len(values), cols)
	}
	o, out, err := newOf[int64](x, t.Shape()...)
	if err != nil {
		return nil, err
	}
	for i, v := range engine.Data[int64](t) {
		if v == missing {
			v = values[i%cols%len(values)]
		}
		out[i] = v
	}
	return o, nil
}

func buildBinarizer(b *builder) (Kernel, error) {
	t := b.attrs.float("threshold", 0)
	b.result = []engine.DType{floatResult(b.inType(0))}
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		return x.one(columnMap(x, in[0], func(_ int, v float64) float64 {
			if v > t {
				return 1
			}
			return 0
		}))
	}, nil
}

// buildFeatureVectorizer joins matrices by column, as float32.
func buildFeatureVectorizer(b *builder) (Kernel, error) {
	sizes := b.attrs.ints("inputdimensions")
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		var total, rows int
		for i, t := range in {
			r, c, err := matrix(t)
			if err != nil {
				return nil, err
			}
			if sizes != nil && (i >= len(sizes) || int(sizes[i]) != c) || i > 0 && r != rows {
				return nil, fmt.Errorf("input %d of shape %v does not fit", i, t.Shape())
			}
			rows, total = r, total+c
		}
		o, out, err := newOf[float32](x, rows, total)
		if err != nil {
			return nil, err
		}
		at := 0
		for _, t := range in {
			_, c, _ := matrix(t)
			v, ok := x.float64s(t)
			if !ok {
				return nil, typeError(t)
			}
			for r := range rows {
				narrow(out[r*total+at:r*total+at+c], v[r*c:(r+1)*c])
			}
			at += c
		}
		return x.one(o, nil)
	}, nil
}

func buildArrayFeatureExtractor(*builder) (Kernel, error) {
	return func(x *Exec, in []*engine.Tensor) ([]*engine.Tensor, error) {
		index, err := x.intsOf(in[1])
		if err != nil {
			return nil, err
		}
		cols := columnsOf(in[0])
		for _, j := range index {
			if j < 0 || j >= cols {
				return nil, outsideAxis(cols)
			}
		}
		s := in[0].Shape()
		shape := x.ints(max(2, len(s)))
		if len(s) > 1 {
			copy(shape, s[:len(s)-1])
		} else {
			shape[0] = 1
		}
		shape[len(shape)-1] = len(index)
		out, err := x.New(in[0].DType(), shape...)
		if err != nil {
			return nil, err
		}
		for i := range out.Len() {
			moveRun(out, in[0], i, i/len(index)*cols+index[i%len(index)], 1)
		}
		return x.one(out, nil)
	}, nil
}

func init() {
	register(DomainML, map[string]opDef{
		"Scaler":                {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: mlTypes, result: fromBuilder, build: buildScaler},
		"Normalizer":            {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: mlTypes, result: fromBuilder, build: buildNormalizer},
		"Imputer":               {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: mlTypes, build: buildImputer},
		"Binarizer":             {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: mlTypes, result: fromBuilder, build: buildBinarizer},
		"FeatureVectorizer":     {since: 1, minIn: 1, maxIn: math.MaxInt32, maxOut: 1, accept: mlTypes, result: isFloat32, build: buildFeatureVectorizer},
		"ArrayFeatureExtractor": {since: 1, minIn: 2, maxIn: 2, maxOut: 1, build: buildArrayFeatureExtractor},
		"ZipMap": {since: 1, minIn: 1, maxIn: 1, maxOut: 1, view: true, build: func(b *builder) (Kernel, error) {
			b.attrs.ignore("classlabels_int64s", "classlabels_strings")
			return passThrough, nil
		}},
	})
	register(DomainLocal, map[string]opDef{
		OpLinearScores:     {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: mlTypes, result: fromBuilder, build: buildLinearScores},
		OpTreeScores:       {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: mlTypes, result: fromBuilder, build: buildTreeScores},
		OpPostTransform:    {since: 1, minIn: 1, maxIn: 1, maxOut: 1, accept: floatTypes, result: fromBuilder, build: buildPostTransform},
		OpClassifierOutput: {since: 1, minIn: 1, maxIn: 1, maxOut: 2, accept: floatTypes, result: fromBuilder, build: buildClassifierOutput},
	})
}
