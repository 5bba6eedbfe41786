package collector

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/pellucid/pellucid/engine"
)

// class is one of the four arrays of Columns.
type class uint8

const (
	classNone class = iota
	classF32
	classF64
	classI64
	classStr
)

func classOf(d engine.DType) class {
	switch {
	case d == engine.Float64:
		return classF64
	case d.IsFloat():
		return classF32
	case d == engine.Bool, d.IsInteger():
		return classI64
	case d == engine.String:
		return classStr
	}
	return classNone
}

// span is where a field's values lie in a row of its class.
type span struct {
	class  class
	at, n  int
	dimsAt int   // where its dimensions start in the row's I64, if Variable
	dims   []int // the row's own dimensions, if Variable
}

// layout says where every field of a row lies, for rows of the given widths.
//
// A row of a class holds, in this order: (I64 only) the dimensions of every
// variable field, the fixed fields, the variable fields; each group in the
// fields' order. Without variable fields that is simply the fields in order.
type layout struct {
	spans []span
	width [classStr + 1]int
}

// stored reports whether values of f are kept at all.
func stored(f *Field) bool { return f.Private != PrivacyDrop }

// FieldPosition returns where the scalar or fixed field number i of fields begins in
// a row of its array, and which array that is ("F32", "F64", "I64" or "Str").
// ok is false for a dropped or variable field.
func FieldPosition(fields []Field, i int) (array string, offset int, ok bool) {
	if i < 0 || i >= len(fields) || !stored(&fields[i]) || fields[i].Elements == Variable {
		return "", 0, false
	}
	c := classOf(fields[i].DType)
	if c == classNone {
		return "", 0, false
	}
	if c == classI64 {
		offset = dimsLen(fields)
	}
	for k := range fields[:i] {
		f := &fields[k]
		if stored(f) && f.Elements != Variable && classOf(f.DType) == c {
			offset += f.Elements
		}
	}
	return [...]string{"", "F32", "F64", "I64", "Str"}[c], offset, true
}

func dimsLen(fields []Field) int {
	n := 0
	for i := range fields {
		if stored(&fields[i]) && fields[i].Elements == Variable {
			n += len(fields[i].Shape)
		}
	}
	return n
}

// newLayout lays out fields; variable says the dimensions of the k-th variable
// field.
func newLayout(fields []Field, variable func(k int) ([]int, error)) (*layout, error) {
	l := &layout{spans: make([]span, len(fields))}
	l.width[classI64] = dimsLen(fields)
	for i := range fields {
		f := &fields[i]
		if !stored(f) || f.Elements == Variable {
			continue
		}
		c := classOf(f.DType)
		l.spans[i] = span{class: c, at: l.width[c], n: f.Elements}
		l.width[c] += f.Elements
	}
	k, dimsAt := 0, 0
	for i := range fields {
		f := &fields[i]
		if !stored(f) || f.Elements != Variable {
			continue
		}
		dims, err := variable(k)
		if err != nil {
			return nil, err
		}
		n, err := engine.Elements(dims)
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", f.Name, err)
		}
		if len(dims) != len(f.Shape) {
			return nil, fmt.Errorf("field %q: shape %v where %v is declared", f.Name, dims, f.Shape)
		}
		c := classOf(f.DType)
		if n > math.MaxInt-l.width[c] {
			return nil, fmt.Errorf("field %q: shape %v is too large", f.Name, dims)
		}
		l.spans[i] = span{class: c, at: l.width[c], n: n, dims: dims, dimsAt: dimsAt}
		l.width[c] += n
		dimsAt += len(dims)
		k++
	}
	return l, nil
}

// rowLayout is the layout of one stored row, whose variable fields' dimensions
// are the first values of its I64.
func rowLayout(fields []Field, row *Columns) (*layout, error) {
	var shapes []int
	for i := range fields {
		if stored(&fields[i]) && fields[i].Elements == Variable {
			shapes = append(shapes, len(fields[i].Shape))
		}
	}
	at := 0
	l, err := newLayout(fields, func(k int) ([]int, error) {
		rank := shapes[k]
		if at+rank > len(row.I64) {
			return nil, fmt.Errorf("stored row has no dimensions")
		}
		dims := make([]int, rank)
		for i, d := range row.I64[at : at+rank] {
			dims[i] = int(d)
		}
		at += rank
		return dims, nil
	})
	if err != nil {
		return nil, err
	}
	if len(row.F32) != l.width[classF32] || len(row.F64) != l.width[classF64] ||
		len(row.I64) != l.width[classI64] || len(row.Str) != l.width[classStr] {
		return nil, fmt.Errorf("stored row has %d, %d, %d, %d values where its schema has %d, %d, %d, %d (F32, F64, I64, Str)",
			len(row.F32), len(row.F64), len(row.I64), len(row.Str),
			l.width[classF32], l.width[classF64], l.width[classI64], l.width[classStr])
	}
	return l, nil
}

// Empty reports whether c holds nothing at all.
func (c *Columns) Empty() bool {
	return len(c.F32) == 0 && len(c.F64) == 0 && len(c.I64) == 0 && len(c.Str) == 0
}

// Row returns row r of rows, sharing memory with c.
func (c *Columns) Row(r, rows int) Columns {
	return Columns{F32: rowOf(c.F32, r, rows), F64: rowOf(c.F64, r, rows), I64: rowOf(c.I64, r, rows), Str: rowOf(c.Str, r, rows)}
}

func rowOf[T any](v []T, r, rows int) []T {
	if rows <= 0 || r < 0 || r >= rows || len(v) == 0 {
		return nil
	}
	n := len(v) / rows
	return v[r*n : (r+1)*n : (r+1)*n]
}

// Flatten turns rows rows of canonical values (engine.Bind's, or a model's
// outputs) into columns, row by row in the order of fields and by element type.
// A field takes the tensor of its name; the fields of a tabular model with a
// matrix input take that matrix, column by column. Dropped fields are left out.
// Fields that are masked, hashed or bucketed are replaced first: no value of theirs
// is in what is returned. Half floats become float32, booleans and integers int64,
// all exactly. Where that leaves a tensor as it is, its memory is shared. Sealed fields
// need FlattenFor. The error wraps ErrShape where a tensor is not rows rows of its field.
//
// It allocates once an element type at most (a few words more where the model has
// tensors whose size varies).
func Flatten(fields []Field, vals engine.Values, rows int) (Columns, error) {
	return FlattenFor(Scope{}, fields, vals, rows)
}

// FlattenFor is Flatten for fields of which some may be sealed, which binds their
// values to at.
func FlattenFor(at Scope, fields []Field, vals engine.Values, rows int) (Columns, error) {
	var c Columns
	if rows < 0 {
		return c, fmt.Errorf("flatten: %d rows", rows)
	}
	if m := matrixOf(fields, vals, rows); m != nil {
		return flattenMatrix(at, fields, m, rows)
	}
	vals, err := redact(at, fields, vals, rows)
	if err != nil {
		return c, err
	}
	if t := plainTensor(fields, vals, rows); t != nil {
		return Columns{F32: engine.Data[float32](t), F64: engine.Data[float64](t)}, nil
	}
	tensors, err := matchTensors(fields, vals, rows)
	if err != nil {
		return c, err
	}
	var variable []int
	for i := range fields {
		if stored(&fields[i]) && fields[i].Elements == Variable {
			variable = append(variable, i)
		}
	}
	l, err := newLayout(fields, func(k int) ([]int, error) {
		i := variable[k]
		return rowShape(&fields[i], tensors[i], rows), nil
	})
	if err != nil {
		return c, fmt.Errorf("flatten: %w", err)
	}
	c = makeColumns(l, rows)
	for i := range fields {
		if !stored(&fields[i]) {
			continue
		}
		sp := l.spans[i]
		for r := 0; r < rows && sp.dims != nil; r++ {
			for d, n := range sp.dims {
				c.I64[r*l.width[classI64]+sp.dimsAt+d] = int64(n)
			}
		}
		shared := tensors[i].Len() == sp.n && rows > 1
		copyField(&c, l, sp, tensors[i], rows, shared)
	}
	return c, nil
}

func makeColumns(l *layout, rows int) Columns {
	var c Columns
	if n := l.width[classF32] * rows; n > 0 {
		c.F32 = make([]float32, n)
	}
	if n := l.width[classF64] * rows; n > 0 {
		c.F64 = make([]float64, n)
	}
	if n := l.width[classI64] * rows; n > 0 {
		c.I64 = make([]int64, n)
	}
	if n := l.width[classStr] * rows; n > 0 {
		c.Str = make([]string, n)
	}
	return c
}

// matrixOf returns the one tensor that holds every field as a column, or nil.
func matrixOf(fields []Field, vals engine.Values, rows int) *engine.Tensor {
	if len(vals) != 1 || len(fields) == 0 || vals[0].Tensor == nil {
		return nil
	}
	t := vals[0].Tensor
	if len(t.Shape()) != 2 || t.Rows() != rows || t.RowLen() != len(fields) {
		return nil
	}
	if len(fields) == 1 && fields[0].Name == vals[0].Name {
		return nil // a plain input or output
	}
	for i := range fields {
		// What a private field is stored as is not what it comes as.
		if fields[i].DType != t.DType() && !transformed(&fields[i]) || len(fields[i].Shape) != 0 {
			return nil
		}
	}
	return t
}

// plainTensor returns the tensor that is, as it is, what is stored of the only
// field: one of floats, of a fixed size. It is nil for anything else.
func plainTensor(fields []Field, vals engine.Values, rows int) *engine.Tensor {
	if len(fields) != 1 || len(vals) != 1 || !stored(&fields[0]) || fields[0].Name != vals[0].Name {
		return nil
	}
	f, t := &fields[0], vals[0].Tensor
	if t == nil || f.Elements == Variable || f.DType != t.DType() || t.Len() != rows*f.Elements {
		return nil
	}
	if d := t.DType(); d != engine.Float32 && d != engine.Float64 {
		return nil
	}
	return t
}

func flattenMatrix(at Scope, fields []Field, t *engine.Tensor, rows int) (Columns, error) {
	keep := make([]int, 0, 64)
	for i := range fields {
		if transformed(&fields[i]) {
			return flattenPrivateMatrix(at, fields, t, rows)
		}
		if stored(&fields[i]) {
			keep = append(keep, i)
		}
	}
	if d := t.DType(); len(keep) == len(fields) && (d == engine.Float32 || d == engine.Float64) {
		return Columns{F32: engine.Data[float32](t), F64: engine.Data[float64](t)}, nil
	}
	var c Columns
	n, k := len(fields), len(keep)
	switch classOf(t.DType()) {
	case classF32:
		c.F32 = make([]float32, rows*k)
		gather(c.F32, keep, n, rows, f32At(t))
	case classF64:
		c.F64 = make([]float64, rows*k)
		src := engine.Data[float64](t)
		gather(c.F64, keep, n, rows, func(i int) float64 { return src[i] })
	case classI64:
		c.I64 = make([]int64, rows*k)
		gather(c.I64, keep, n, rows, i64At(t))
	case classStr:
		c.Str = make([]string, rows*k)
		src := engine.Data[string](t)
		gather(c.Str, keep, n, rows, func(i int) string { return src[i] })
	default:
		return c, fmt.Errorf("flatten: matrix of type %s", t.DType())
	}
	return c, nil
}

func gather[T any](dst []T, keep []int, n, rows int, at func(int) T) {
	w := 0
	for r := range rows {
		for _, i := range keep {
			dst[w] = at(r*n + i)
			w++
		}
	}
}

// ErrShape is wrapped by the error of values that are not shaped as their schema says,
// which happens where a model declares other shapes than it answers with, or none.
var ErrShape = errors.New("not of the declared shape")

func misshapen(f *Field, t *engine.Tensor, rows int) error {
	return fmt.Errorf("flatten: tensor %q has shape %v where %d rows of %v are declared: %w", f.Name, t.Shape(), rows, f.Shape, ErrShape)
}

// matchTensors finds each stored field's tensor and checks that it fits.
func matchTensors(fields []Field, vals engine.Values, rows int) ([]*engine.Tensor, error) {
	tensors := make([]*engine.Tensor, len(fields))
	for i := range fields {
		f := &fields[i]
		if !stored(f) {
			continue
		}
		t := vals.Get(f.Name)
		if t == nil {
			return nil, fmt.Errorf("flatten: no tensor %q", f.Name)
		}
		if classOf(t.DType()) != classOf(f.DType) || classOf(t.DType()) == classNone {
			return nil, fmt.Errorf("flatten: tensor %q is %s where %s is declared", f.Name, t.DType(), f.DType)
		}
		if !fits(f, t, rows) {
			return nil, misshapen(f, t, rows)
		}
		tensors[i] = t
	}
	return tensors, nil
}

// fits reports whether t is rows rows of f, or one value of f shared by all.
func fits(f *Field, t *engine.Tensor, rows int) bool {
	rank := len(t.Shape())
	if f.Elements != Variable {
		return t.Len() == rows*f.Elements || rank == len(f.Shape) && t.Len() == f.Elements
	}
	return rank == len(f.Shape)+1 && t.Rows() == rows || rank == len(f.Shape)
}

// rowShape is the shape of one row of a variable field.
func rowShape(f *Field, t *engine.Tensor, rows int) []int {
	if len(t.Shape()) == len(f.Shape)+1 && t.Rows() == rows {
		return t.Shape()[1:]
	}
	return t.Shape()
}

func copyField(c *Columns, l *layout, sp span, t *engine.Tensor, rows int, shared bool) {
	w := l.width[sp.class]
	switch sp.class {
	case classF32:
		if src := engine.Data[float32](t); src != nil {
			scatter(c.F32, src, sp, w, rows, shared)
			return
		}
		scatterFunc(c.F32, f32At(t), sp, w, rows, shared)
	case classF64:
		scatter(c.F64, engine.Data[float64](t), sp, w, rows, shared)
	case classI64:
		if src := engine.Data[int64](t); src != nil {
			scatter(c.I64, src, sp, w, rows, shared)
			return
		}
		scatterFunc(c.I64, i64At(t), sp, w, rows, shared)
	case classStr:
		scatter(c.Str, engine.Data[string](t), sp, w, rows, shared)
	}
}

func scatter[T any](dst, src []T, sp span, width, rows int, shared bool) {
	for r := range rows {
		from := r * sp.n
		if shared {
			from = 0
		}
		copy(dst[r*width+sp.at:], src[from:from+sp.n])
	}
}

func scatterFunc[T any](dst []T, at func(int) T, sp span, width, rows int, shared bool) {
	for r := range rows {
		from := r * sp.n
		if shared {
			from = 0
		}
		for i := range sp.n {
			dst[r*width+sp.at+i] = at(from + i)
		}
	}
}

// f32At reads elements of a float32 or half tensor as float32.
func f32At(t *engine.Tensor) func(int) float32 {
	if src := engine.Data[float32](t); src != nil || t.DType() == engine.Float32 {
		return func(i int) float32 { return src[i] }
	}
	bits, d := engine.Data[uint16](t), t.DType()
	return func(i int) float32 { return engine.HalfToFloat32(d, bits[i]) }
}

// i64At reads elements of a boolean or integer tensor as int64 (uint64 by its bits).
func i64At(t *engine.Tensor) func(int) int64 {
	switch t.DType() {
	case engine.Bool:
		src := engine.Data[bool](t)
		return func(i int) int64 {
			if src[i] {
				return 1
			}
			return 0
		}
	case engine.Uint8:
		return integerAt(engine.Data[uint8](t))
	case engine.Uint16:
		return integerAt(engine.Data[uint16](t))
	case engine.Uint32:
		return integerAt(engine.Data[uint32](t))
	case engine.Uint64:
		return integerAt(engine.Data[uint64](t))
	case engine.Int8:
		return integerAt(engine.Data[int8](t))
	case engine.Int16:
		return integerAt(engine.Data[int16](t))
	case engine.Int32:
		return integerAt(engine.Data[int32](t))
	}
	return integerAt(engine.Data[int64](t))
}

func integerAt[T uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64](src []T) func(int) int64 {
	return func(i int) int64 { return int64(src[i]) }
}

// Unflatten is the inverse of Flatten over the features of stored rows: the
// canonical inputs of the model, to run or explain it again. It wraps
// ErrRefused where a private field, or features that were never stored, stand
// in the way.
func Unflatten(s *Schema, info *engine.Info, rows []RawRow) (engine.Values, error) {
	for i := range s.Features {
		switch f := &s.Features[i]; f.Private {
		case PrivacyNone:
		case PrivacySeal:
			return nil, fmt.Errorf("%w: feature %q is sealed", ErrRefused, f.Name)
		default:
			return nil, fmt.Errorf("%w: feature %q is private (%s), so its value is not stored", ErrRefused, f.Name, f.Private)
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("restore inputs: no rows")
	}
	layouts := make([]*layout, len(rows))
	for r := range rows {
		if id := rows[r].SchemaID; id != "" && id != s.ID {
			return nil, fmt.Errorf("restore inputs: row has schema %s, not %s", id, s.ID)
		}
		if rows[r].Features.Empty() && len(s.Features) > 0 {
			return nil, fmt.Errorf("%w: the features of this prediction were not stored", ErrRefused)
		}
		l, err := rowLayout(s.Features, &rows[r].Features)
		if err != nil {
			return nil, fmt.Errorf("restore inputs: %w", err)
		}
		layouts[r] = l
	}
	if !Batched(info) && len(rows) > 1 {
		return nil, fmt.Errorf("restore inputs: the model takes one row at a time, not %d", len(rows))
	}
	if info.Features != nil && len(info.Inputs) == 1 {
		return restoreMatrix(s, info, rows, layouts)
	}
	out := make(engine.Values, len(info.Inputs))
	for i, in := range info.Inputs {
		if i >= len(s.Features) || s.Features[i].Name != in.Name {
			return nil, fmt.Errorf("restore inputs: input %q is not in the schema", in.Name)
		}
		t, err := restoreInput(in, i, rows, layouts, Batched(info))
		if err != nil {
			return nil, fmt.Errorf("restore input %q: %w", in.Name, err)
		}
		out[i] = engine.Named{Name: in.Name, Tensor: t}
	}
	return out, nil
}

func restoreMatrix(s *Schema, info *engine.Info, rows []RawRow, layouts []*layout) (engine.Values, error) {
	t, err := engine.New(info.Inputs[0].DType, len(rows), len(s.Features))
	if err != nil {
		return nil, fmt.Errorf("restore inputs: %w", err)
	}
	for r := range rows {
		for i := range s.Features {
			if err := setElements(t, r*len(s.Features)+i, &rows[r].Features, layouts[r].spans[i]); err != nil {
				return nil, fmt.Errorf("restore feature %q: %w", s.Features[i].Name, err)
			}
		}
	}
	return engine.Values{{Name: info.Inputs[0].Name, Tensor: t}}, nil
}

func restoreInput(in engine.Spec, field int, rows []RawRow, layouts []*layout, batched bool) (*engine.Tensor, error) {
	first := layouts[0].spans[field]
	shape := slices.Clone(in.Shape)
	switch {
	case first.dims != nil && batched:
		shape = append([]int{len(rows)}, first.dims...)
	case first.dims != nil:
		shape = slices.Clone(first.dims)
	case batched:
		shape[0] = len(rows)
	}
	t, err := engine.New(in.DType, shape...)
	if err != nil {
		return nil, err
	}
	for r := range rows {
		sp := layouts[r].spans[field]
		if !slices.Equal(sp.dims, first.dims) || sp.n*len(rows) != t.Len() {
			return nil, fmt.Errorf("rows have different shapes (%v and %v)", first.dims, sp.dims)
		}
		if err := setElements(t, r*sp.n, &rows[r].Features, sp); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// setElements copies the values of one stored field into t from element at on.
func setElements(t *engine.Tensor, at int, row *Columns, sp span) error {
	if sp.class != classOf(t.DType()) {
		return fmt.Errorf("stored type does not fit %s", t.DType())
	}
	switch sp.class {
	case classF64:
		copy(engine.Data[float64](t)[at:], row.F64[sp.at:sp.at+sp.n])
	case classStr:
		copy(engine.Data[string](t)[at:], row.Str[sp.at:sp.at+sp.n])
	case classF32:
		src := row.F32[sp.at : sp.at+sp.n]
		if t.DType() == engine.Float32 {
			copy(engine.Data[float32](t)[at:], src)
			return nil
		}
		dst := engine.Data[uint16](t)[at:]
		for i, v := range src {
			bits, ok := halfBits(t.DType(), v)
			if !ok {
				return fmt.Errorf("stored value is not a %s", t.DType())
			}
			dst[i] = bits
		}
	case classI64:
		return setIntegers(t, at, row.I64[sp.at:sp.at+sp.n])
	}
	return nil
}

func setIntegers(t *engine.Tensor, at int, src []int64) error {
	ok := true
	switch t.DType() {
	case engine.Bool:
		dst := engine.Data[bool](t)[at:]
		for i, v := range src {
			dst[i] = v != 0
			ok = ok && v>>1 == 0
		}
	case engine.Uint8:
		ok = narrow(engine.Data[uint8](t)[at:], src)
	case engine.Uint16:
		ok = narrow(engine.Data[uint16](t)[at:], src)
	case engine.Uint32:
		ok = narrow(engine.Data[uint32](t)[at:], src)
	case engine.Uint64:
		ok = narrow(engine.Data[uint64](t)[at:], src)
	case engine.Int8:
		ok = narrow(engine.Data[int8](t)[at:], src)
	case engine.Int16:
		ok = narrow(engine.Data[int16](t)[at:], src)
	case engine.Int32:
		ok = narrow(engine.Data[int32](t)[at:], src)
	case engine.Int64:
		copy(engine.Data[int64](t)[at:], src)
	}
	if !ok {
		return fmt.Errorf("stored value is not a %s", t.DType())
	}
	return nil
}

func narrow[T uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32](dst []T, src []int64) bool {
	ok := true
	for i, v := range src {
		dst[i] = T(v)
		ok = ok && int64(dst[i]) == v
	}
	return ok
}

// halfBits finds the bits whose value is v, which was widened from them. ok is
// false where there are none.
func halfBits(d engine.DType, v float32) (bits uint16, ok bool) {
	b := math.Float32bits(v)
	if d == engine.BFloat16 {
		return uint16(b >> 16), b&0xffff == 0
	}
	sign := uint16(b >> 16 & 0x8000)
	exp := int(b>>23&0xff) - 112
	frac := b & 0x7fffff
	switch {
	case b&0x7fffffff == 0:
		return sign, true
	case exp == 0xff-112:
		return sign | 0x7c00 | uint16(frac>>13), frac&0x1fff == 0
	case exp >= 0x1f:
		return 0, false
	case exp >= 1:
		return sign | uint16(exp)<<10 | uint16(frac>>13), frac&0x1fff == 0
	}
	// Subnormal: the value is bits * 2^-24.
	n := math.Abs(float64(v)) * (1 << 24)
	return sign | uint16(n), n == math.Trunc(n)
}
