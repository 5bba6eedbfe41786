package engine

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Bind checks a caller's tensors against what the model takes and returns them
// in canonical form: exactly info.Inputs, in that order, each with the declared
// name, element type and rank. Tensors that already fit are returned as they
// are, not copied. The error is always an *InputError.
//
// A tabular model that takes one matrix [-1, M] also takes one tensor a feature,
// named after it, of shape [-1] or [-1, 1]. There, strings are the names of
// Feature.Categories, and numbers are too where those are numbers (see
// Feature.TakesValues), else they are codes, as in the matrix. The empty string and
// NaN are missing values, and a category that the model has not seen is what its library makes of
// it: missing in LightGBM, a code beyond the known ones in XGBoost.
//
// Element types are converted as the libraries' own readers do: any integer,
// Bool or float to FP32 and FP64 (rounded to nearest), integers to other
// integers and whole floats to integers only where no digit is lost. A category
// code that the target type would change, and a finite value that FP32 cannot
// hold, are refused. NaN is refused unless info.Missing. CatBoost takes categories
// as text, and integers for the text they are written as.
//
// rows is the number of predictions the request asks for: the common first
// dimension where every input's first dimension varies and they are equal, else
// one.
func Bind(info *Info, in Values) (canonical Values, rows int, err error) {
	if err := checkNames(in); err != nil {
		return nil, 0, err
	}
	if bindsColumns(info, in) {
		return bindColumns(info, in)
	}
	return bindInputs(info, in)
}

// maxNameLen bounds how much of a caller's name an error repeats.
const maxNameLen = 80

func inputError(input, format string, args ...any) *InputError {
	return &InputError{Input: clip(input), Reason: fmt.Sprintf(format, args...)}
}

func clip(name string) string {
	if len(name) <= maxNameLen {
		return name
	}
	return name[:maxNameLen] + "..."
}

func checkNames(in Values) error {
	seen := make(map[string]struct{}, len(in))
	for i := range in {
		name := in[i].Name
		if _, dup := seen[name]; dup {
			return inputError(name, "given more than once")
		}
		seen[name] = struct{}{}
		if in[i].Tensor == nil {
			return inputError(name, "has no data")
		}
	}
	return nil
}

// matrixInput reports whether info takes one matrix of numbers with a column a
// feature. One column of text is no matrix: it is bound as it comes.
func matrixInput(info *Info) bool {
	if len(info.Inputs) != 1 || len(info.Features) == 0 || info.Inputs[0].DType == String {
		return false
	}
	s := info.Inputs[0].Shape
	return len(s) == 2 && s[0] == -1 && s[1] == len(info.Features)
}

// bindsColumns reports whether in is meant as one tensor a feature. The matrix
// wins where a feature has the matrix's name, unless what came is text.
func bindsColumns(info *Info, in Values) bool {
	if !matrixInput(info) || len(in) == 0 {
		return false
	}
	if len(in) == 1 && in[0].Name == info.Inputs[0].Name && in[0].Tensor.DType() != String {
		return false
	}
	for i := range info.Features {
		if in.Get(info.Features[i].Name) != nil {
			return true
		}
	}
	return false
}

func bindInputs(info *Info, in Values) (Values, int, error) {
	for i := range in {
		if slices.ContainsFunc(info.Optional, func(s Spec) bool { return s.Name == in[i].Name }) {
			return nil, 0, inputError(in[i].Name, "is optional: the model runs here without it")
		}
		if !slices.ContainsFunc(info.Inputs, func(s Spec) bool { return s.Name == in[i].Name }) {
			return nil, 0, inputError(in[i].Name, "the model has no such input; it takes %s", describe(info))
		}
	}
	out := make(Values, len(info.Inputs))
	for i := range info.Inputs {
		spec := &info.Inputs[i]
		t := in.Get(spec.Name)
		if t == nil {
			return nil, 0, inputError(spec.Name, "is absent")
		}
		t, err := fitShape(info, spec, t)
		if err != nil {
			return nil, 0, err
		}
		t, err = convertInput(info, spec, i, t)
		if err != nil {
			return nil, 0, err
		}
		out[i] = Named{Name: spec.Name, Tensor: t}
	}
	rows, err := countRows(info, out)
	if err != nil {
		return nil, 0, err
	}
	return out, rows, nil
}

func describe(info *Info) string {
	s := ""
	for i := range info.Inputs {
		if i == 8 {
			return s + fmt.Sprintf(" and %d more", len(info.Inputs)-i)
		}
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%q %s %v", info.Inputs[i].Name, info.Inputs[i].DType, info.Inputs[i].Shape)
	}
	if matrixInput(info) {
		s += ", or one tensor a feature"
	}
	return s
}

// fitShape checks rank and fixed dimensions. A column of a tabular model may
// come as [n] where [-1, 1] is declared, and the other way round.
func fitShape(info *Info, spec *Spec, t *Tensor) (*Tensor, error) {
	shape := t.Shape()
	if len(info.Features) > 0 {
		column := len(spec.Shape) == 2 && spec.Shape[1] == 1
		switch {
		case column && len(shape) == 1:
			return reshape(spec.Name, t, shape[0], 1)
		case len(spec.Shape) == 1 && len(shape) == 2 && shape[1] == 1:
			return reshape(spec.Name, t, shape[0])
		}
	}
	if len(shape) != len(spec.Shape) {
		return nil, inputError(spec.Name, "shape %v has rank %d, the model takes %v", shape, len(shape), spec.Shape)
	}
	for i, d := range spec.Shape {
		if d >= 0 && shape[i] != d {
			return nil, inputError(spec.Name, "shape %v does not fit the model's %v", shape, spec.Shape)
		}
	}
	return t, nil
}

func reshape(name string, t *Tensor, shape ...int) (*Tensor, error) {
	r, err := t.Reshape(shape...)
	if err != nil {
		return nil, inputError(name, "%v", err)
	}
	return r, nil
}

// countRows returns the number of predictions asked for. A tabular model's
// columns must agree; another model's inputs may differ and are then one.
func countRows(info *Info, out Values) (int, error) {
	rows := 1
	for i := range out {
		if len(info.Inputs[i].Shape) == 0 || info.Inputs[i].Shape[0] != -1 {
			return 1, nil
		}
		n := out[i].Tensor.Rows()
		if i > 0 && n != rows {
			if len(info.Features) > 0 {
				return 0, inputError(out[i].Name, "has %d rows where input %q has %d", n, out[0].Name, rows)
			}
			return 1, nil
		}
		rows = n
	}
	if rows == 0 && len(out) > 0 {
		return 0, inputError(out[0].Name, "has no rows")
	}
	return rows, nil
}

// convertInput brings t to the declared element type and refuses missing values
// where the model takes none.
func convertInput(info *Info, spec *Spec, input int, t *Tensor) (*Tensor, error) {
	feature := func(i int) *Feature {
		switch {
		case matrixInput(info):
			return &info.Features[i%len(info.Features)]
		case len(info.Features) == len(info.Inputs):
			return &info.Features[input]
		}
		return nil
	}
	if f := feature(0); f != nil && f.Categorical && spec.DType == String && info.Format == "catboost" {
		t = categoryTexts(t)
	}
	out, at, reason := convert(t, spec.DType, func(i int) bool {
		f := feature(i)
		return f != nil && f.Categorical
	})
	if reason == "" && !info.Missing && !spec.Unread {
		if at = firstNaN(out); at >= 0 {
			reason = "is missing (NaN), and the model takes no missing values"
		}
	}
	if reason == "" {
		return out, nil
	}
	e := inputError(spec.Name, "%s", reason)
	if at >= 0 {
		if f := feature(at); f != nil {
			e.Feature = f.Name
		}
	}
	return nil, e
}

// bindColumns gathers one tensor a feature into the matrix the model takes.
func bindColumns(info *Info, in Values) (Values, int, error) {
	spec := &info.Inputs[0]
	byName := make(map[string]int, len(info.Features))
	for i := range info.Features {
		if _, dup := byName[info.Features[i].Name]; dup {
			return nil, 0, inputError(info.Features[i].Name, "names more than one feature of the model; send the matrix %q", spec.Name)
		}
		byName[info.Features[i].Name] = i
	}
	columns := make([]*Tensor, len(info.Features))
	for i := range in {
		f, ok := byName[in[i].Name]
		if !ok {
			return nil, 0, inputError(in[i].Name, "the model has no such feature")
		}
		columns[f] = in[i].Tensor
	}
	rows := -1
	for f, t := range columns {
		name := info.Features[f].Name
		if t == nil {
			return nil, 0, inputError(name, "is absent: the model needs all of its %d features", len(columns))
		}
		s := t.Shape()
		if len(s) != 1 && (len(s) != 2 || s[1] != 1) {
			return nil, 0, inputError(name, "shape %v is not a column: [-1] or [-1 1]", s)
		}
		if rows >= 0 && t.Rows() != rows {
			return nil, 0, inputError(name, "has %d rows where feature %q has %d", t.Rows(), info.Features[0].Name, rows)
		}
		rows = t.Rows()
	}
	if rows == 0 {
		return nil, 0, inputError(info.Features[0].Name, "has no rows")
	}
	matrix, err := New(spec.DType, rows, len(columns))
	if err != nil {
		return nil, 0, inputError(spec.Name, "%v", err)
	}
	for f, t := range columns {
		if err := fillColumn(info, matrix, f, t); err != nil {
			return nil, 0, err
		}
	}
	return Values{{Name: spec.Name, Tensor: matrix}}, rows, nil
}

func fillColumn(info *Info, matrix *Tensor, f int, t *Tensor) error {
	feature := &info.Features[f]
	var reason string
	switch dst := matrix.data.(type) {
	case *[]float32:
		reason = fillFrom(*dst, info, f, t)
	case *[]float64:
		reason = fillFrom(*dst, info, f, t)
	default:
		reason = fmt.Sprintf("a matrix of %s takes no columns", matrix.DType())
	}
	if reason != "" {
		return inputError(feature.Name, "%s", reason)
	}
	return nil
}

// fillFrom converts a column into its place in the rows of a matrix, as convert does.
// The usual types need no memory of their own.
func fillFrom[F float32 | float64](dst []F, info *Info, f int, t *Tensor) (reason string) {
	feature, width := &info.Features[f], len(info.Features)
	if t.dtype != String && feature.TakesValues() {
		return fillValues(dst, info, f, t)
	}
	switch d := t.data.(type) {
	case *[]float32:
		reason = fillFloats(dst, *d, f, width)
	case *[]float64:
		reason = fillFloats(dst, *d, f, width)
	case *[]int64:
		reason = fillIntegers(dst, *d, f, width, feature.Categorical)
	case *[]int32:
		reason = fillIntegers(dst, *d, f, width, feature.Categorical)
	case *[]int16:
		reason = fillIntegers(dst, *d, f, width, feature.Categorical)
	case *[]int8:
		reason = fillIntegers(dst, *d, f, width, feature.Categorical)
	case *[]uint8:
		reason = fillIntegers(dst, *d, f, width, feature.Categorical)
	case *[]uint32:
		reason = fillIntegers(dst, *d, f, width, feature.Categorical)
	case *[]string:
		reason = fillNames(dst, *d, info, f)
	default:
		var col *Tensor
		if col, _, reason = convert(t, dtypeOf[F](), func(int) bool { return feature.Categorical }); reason == "" {
			scatter(dst, Data[F](col), f, width)
		}
	}
	for at := f; reason == "" && !info.Missing && at < len(dst); at += width {
		if dst[at] != dst[at] {
			reason = "is missing (NaN), and the model takes no missing values"
		}
	}
	return reason
}

func fillFloats[F, G float32 | float64](dst []F, col []G, f, width int) string {
	for r, v := range col {
		x := F(v)
		if math.IsInf(float64(x), 0) && !math.IsInf(float64(v), 0) {
			return "a value is too large for FP32"
		}
		dst[r*width+f] = x
	}
	return ""
}

func fillIntegers[F float32 | float64, I int8 | int16 | int32 | int64 | uint8 | uint32](dst []F, col []I, f, width int, exact bool) string {
	for r, v := range col {
		x := F(v)
		if exact && !keepsInteger(x, v) {
			return "a category code is too large to be kept exactly"
		}
		dst[r*width+f] = x
	}
	return ""
}

func scatter[T float32 | float64](dst, col []T, f, width int) {
	for r, v := range col {
		dst[r*width+f] = v
	}
}

// categoryTexts writes integers as the text CatBoost hashes for them; anything
// else is returned as it is. A real number is no category to CatBoost either.
func categoryTexts(t *Tensor) *Tensor {
	var out []string
	switch d := t.data.(type) {
	case *[]int8:
		out = texts(*d)
	case *[]int16:
		out = texts(*d)
	case *[]int32:
		out = texts(*d)
	case *[]int64:
		out = texts(*d)
	case *[]uint8:
		out = texts(*d)
	case *[]uint32:
		out = texts(*d)
	case *[]uint64:
		out = texts(*d)
	case *[]uint16:
		if t.dtype == Uint16 {
			out = texts(*d)
		}
	}
	if out == nil {
		return t
	}
	return &Tensor{dtype: String, shape: t.shape, data: hold(out)}
}

func texts[I integer](d []I) []string {
	out := make([]string, len(d))
	for i, v := range d {
		if v < 0 {
			out[i] = strconv.FormatInt(int64(v), 10)
		} else {
			out[i] = strconv.FormatUint(uint64(v), 10)
		}
	}
	return out
}

// convert returns t with the given element type. Where it cannot, reason says
// why and at is the offending element, or -1 when the type itself is to blame.
// exact says whether element i must keep its value (a category code).
func convert(t *Tensor, d DType, exact func(int) bool) (out *Tensor, at int, reason string) {
	if t.dtype == d {
		return t, -1, ""
	}
	var data any
	switch {
	case t.dtype == String || d == String || d == Bool || d == Float16 || d == BFloat16:
		return nil, -1, fmt.Sprintf("type %s is not the model's %s", t.dtype, d)
	case d == Float32:
		data, at, reason = toFloat[float32](t, exact)
	case d == Float64:
		data, at, reason = toFloat[float64](t, exact)
	case t.dtype == Bool || t.dtype == Float16 || t.dtype == BFloat16:
		return nil, -1, fmt.Sprintf("type %s is not the model's %s", t.dtype, d)
	default:
		data, at, reason = toInteger(t, d)
	}
	if reason != "" {
		return nil, at, reason
	}
	return &Tensor{dtype: d, shape: t.shape, data: data}, -1, ""
}

func toFloat[F float32 | float64](t *Tensor, exact func(int) bool) (any, int, string) {
	switch d := t.data.(type) {
	case *[]int64:
		return integersToFloat[F](*d, exact)
	case *[]uint64:
		return integersToFloat[F](*d, exact)
	case *[]int32:
		return integersToFloat[F](*d, exact)
	case *[]uint32:
		return integersToFloat[F](*d, exact)
	}
	wide, ok := t.Float64s()
	if !ok {
		return nil, -1, fmt.Sprintf("type %s is not a number", t.dtype)
	}
	out := make([]F, len(wide))
	for i, v := range wide {
		f := F(v)
		if math.IsInf(float64(f), 0) && !math.IsInf(v, 0) {
			return nil, i, "a value is too large for FP32"
		}
		out[i] = f
	}
	return hold(out), -1, ""
}

// integersToFloat rounds once, from the integer itself: by way of float64 a
// large integer would be rounded twice.
func integersToFloat[F float32 | float64, I int32 | uint32 | int64 | uint64](d []I, exact func(int) bool) (any, int, string) {
	const limit = 1 << 24 // every smaller integer is exact in both types
	out := make([]F, len(d))
	for i, v := range d {
		out[i] = F(v)
		if (v < limit && -v < limit) || !exact(i) {
			continue
		}
		if !keepsInteger(out[i], v) {
			return nil, i, "a category code is too large to be kept exactly"
		}
	}
	return hold(out), -1, ""
}

func keepsInteger[F float32 | float64, I int8 | int16 | int32 | int64 | uint8 | uint32 | uint64](f F, v I) bool {
	// At the top of the range f may be rounded to 2^63 or 2^64, which no I
	// holds, and converting it back is not defined.
	return float64(f) < math.Ldexp(1, 62) && float64(f) > -math.Ldexp(1, 62) && I(f) == v
}

func toInteger(t *Tensor, d DType) (any, int, string) {
	switch d {
	case Int8:
		return integers[int8](t)
	case Int16:
		return integers[int16](t)
	case Int32:
		return integers[int32](t)
	case Int64:
		return integers[int64](t)
	case Uint8:
		return integers[uint8](t)
	case Uint16:
		return integers[uint16](t)
	case Uint32:
		return integers[uint32](t)
	case Uint64:
		return integers[uint64](t)
	}
	return nil, -1, fmt.Sprintf("type %s is not the model's %s", t.dtype, d)
}

type integer interface {
	int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64
}

func integers[I integer](t *Tensor) (any, int, string) {
	switch d := t.data.(type) {
	case *[]int8:
		return narrow[I](*d)
	case *[]int16:
		return narrow[I](*d)
	case *[]int32:
		return narrow[I](*d)
	case *[]int64:
		return narrow[I](*d)
	case *[]uint8:
		return narrow[I](*d)
	case *[]uint16:
		return narrow[I](*d)
	case *[]uint32:
		return narrow[I](*d)
	case *[]uint64:
		return narrow[I](*d)
	case *[]float32:
		return whole[I](*d)
	case *[]float64:
		return whole[I](*d)
	}
	return nil, -1, fmt.Sprintf("type %s is not an integer", t.dtype)
}

func narrow[I, J integer](d []J) (any, int, string) {
	out := make([]I, len(d))
	for i, v := range d {
		out[i] = I(v)
		if J(out[i]) != v || (out[i] < 0) != (v < 0) {
			return nil, i, "an integer is out of the range of the model's type"
		}
	}
	return hold(out), -1, ""
}

func whole[I integer, F float32 | float64](d []F) (any, int, string) {
	const limit = 1 << 53 // beyond, a float64 may already have lost digits
	out := make([]I, len(d))
	for i, v := range d {
		w := float64(v)
		if !(w > -limit && w < limit) || w != math.Trunc(w) {
			return nil, i, "a value is not a whole number that can be kept exactly"
		}
		n := int64(w)
		out[i] = I(n)
		if int64(out[i]) != n || (out[i] < 0) != (n < 0) {
			return nil, i, "an integer is out of the range of the model's type"
		}
	}
	return hold(out), -1, ""
}

// firstNaN returns the index of the first NaN of a float tensor, or -1.
func firstNaN(t *Tensor) int {
	switch d := t.data.(type) {
	case *[]float32:
		return slices.IndexFunc(*d, func(v float32) bool { return v != v })
	case *[]float64:
		return slices.IndexFunc(*d, func(v float64) bool { return v != v })
	case *[]uint16:
		if t.dtype.IsFloat() {
			return slices.IndexFunc(*d, func(b uint16) bool {
				v := HalfToFloat32(t.dtype, b)
				return v != v
			})
		}
	}
	return -1
}
