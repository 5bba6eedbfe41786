package table

import (
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/parquet-go/parquet-go"
)

// orderedGroup is a parquet.Group that keeps its fields in the table's order; a
// Group sorts them by name.
type orderedGroup struct {
	parquet.Group
	fields []parquet.Field
}

type field struct {
	parquet.Node
	name string
}

func (g orderedGroup) Fields() []parquet.Field { return g.fields }

func (f field) Name() string { return f.name }

func (f field) Value(base reflect.Value) reflect.Value { return base.MapIndex(reflect.ValueOf(f.name)) }

func parquetNode(t Type) parquet.Node {
	switch t {
	case Float64:
		return parquet.Leaf(parquet.DoubleType)
	case Float32:
		return parquet.Leaf(parquet.FloatType)
	case Int64:
		return parquet.Int(64)
	case Time:
		return parquet.Timestamp(parquet.Microsecond)
	}
	return parquet.String()
}

// groupRows are the rows of a group, which is in memory until it is whole.
const groupRows = 1 << 16

// Writer writes a Parquet file row by row: every column optional, compressed with zstd. Its
// memory does not grow with the file.
type Writer struct {
	w       *parquet.GenericWriter[any]
	columns []Column
	row     parquet.Row
}

// NewWriter returns a Writer of the columns that have these names and types. Two of one name
// are an error, since whoever reads the file takes one for the other.
func NewWriter(w io.Writer, columns []Column) (*Writer, error) {
	g := orderedGroup{Group: parquet.Group{}}
	for i := range columns {
		if g.Group[columns[i].Name] != nil {
			return nil, fmt.Errorf("write Parquet: two columns are called %q", columns[i].Name)
		}
		n := parquet.Compressed(parquet.Optional(parquetNode(columns[i].Type)), &parquet.Zstd)
		g.Group[columns[i].Name] = n
		g.fields = append(g.fields, field{n, columns[i].Name})
	}
	return &Writer{parquet.NewGenericWriter[any](w, parquet.NewSchema("table", g), parquet.MaxRowsPerRowGroup(groupRows)), columns, make(parquet.Row, len(columns))}, nil
}

// Write appends a row: nil is a missing value, any other is of its column's type, which is
// float64, float32, int64, string or time.Time.
func (w *Writer) Write(row []any) error {
	if len(row) != len(w.columns) {
		return fmt.Errorf("write Parquet: a row of %d values for %d columns", len(row), len(w.columns))
	}
	for i, cell := range row {
		v, ok := parquetValue(w.columns[i].Type, cell)
		switch {
		case cell == nil:
			w.row[i] = parquet.NullValue().Level(0, 0, i)
		case !ok:
			return fmt.Errorf("write Parquet: column %q is of %s and has a value of %T", w.columns[i].Name, w.columns[i].Type, cell)
		default:
			w.row[i] = v.Level(0, 1, i)
		}
	}
	if _, err := w.w.WriteRows([]parquet.Row{w.row}); err != nil {
		return fmt.Errorf("write Parquet: %w", err)
	}
	return nil
}

// Close ends the file, without which it cannot be read. It does not close what is written to.
func (w *Writer) Close() error {
	if err := w.w.Close(); err != nil {
		return fmt.Errorf("write Parquet: %w", err)
	}
	return nil
}

func parquetValue(t Type, cell any) (v parquet.Value, ok bool) {
	switch x := cell.(type) {
	case float64:
		return parquet.DoubleValue(x), t == Float64
	case float32:
		return parquet.FloatValue(x), t == Float32
	case int64:
		return parquet.Int64Value(x), t == Int64
	case string:
		return parquet.ByteArrayValue([]byte(x)), t == String
	case time.Time:
		return parquet.Int64Value(x.UnixMicro()), t == Time
	}
	return v, false
}

// WriteParquet writes the table as a Writer does. Missing values are null.
func (t *Table) WriteParquet(w io.Writer) error {
	out, err := NewWriter(w, t.Columns)
	if err != nil {
		return err
	}
	row := make([]any, len(t.Columns))
	for i := range t.Rows {
		for j := range t.Columns {
			row[j] = t.Columns[j].cell(i)
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	return out.Close()
}

// cell is a value as a Writer takes it.
func (c *Column) cell(i int) any {
	switch {
	case c.Missing(i):
		return nil
	case c.Type == Float64:
		return c.F64[i]
	case c.Type == Float32:
		return c.F32[i]
	case c.Type == Int64:
		return c.I64[i]
	case c.Type == Time:
		return c.Times[i]
	}
	return c.Str[i]
}
