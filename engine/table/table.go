// Package table reads and writes tables of rows: CSV, Parquet and NPY files in,
// typed columns out, and a model's inputs picked from them by name.
//
// It owns the file formats and the typing of columns. It never guesses beyond
// them: a file that is damaged, too large or ambiguous is an error that names
// the file and the place. It computes nothing and knows no server.
//
// Invariants: all columns of a Table have the same length, their names are
// distinct, and exactly the slice of a column's Type is set.
package table

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/engine/stats"
)

// Type is the element type of a column.
type Type uint8

// The types. A column of integers with missing values stays Int64, with Null.
const (
	Float64 Type = iota
	Float32
	Int64
	String
	Time
)

// String returns the type's name.
func (t Type) String() string {
	return [...]string{"float64", "float32", "int64", "string", "time"}[t]
}

// size is the bytes of an element, text not counted.
func (t Type) size() int64 { return [...]int64{8, 4, 8, 16, 24}[t] }

// Column is one column. The slice of its Type holds the values; NaN, the empty
// string, the zero time and, for Int64, Null mark missing ones.
type Column struct {
	Name  string
	Type  Type
	F64   []float64
	F32   []float32
	I64   []int64
	Str   []string
	Times []time.Time
	// Null marks missing values of an Int64 column; nil when there are none.
	Null []bool
}

// Take returns the column of some rows, in their order.
func (c *Column) Take(rows []int) Column {
	return Column{
		Name: c.Name, Type: c.Type, F64: take(c.F64, rows), F32: take(c.F32, rows), I64: take(c.I64, rows),
		Str: take(c.Str, rows), Times: take(c.Times, rows), Null: take(c.Null, rows),
	}
}

func take[T any](v []T, rows []int) []T {
	if v == nil {
		return nil
	}
	out := make([]T, len(rows))
	for at, i := range rows {
		out[at] = v[i]
	}
	return out
}

// Table is a set of columns of equal length.
type Table struct {
	Columns []Column
	Rows    int
	// Named is false where the file has no names (NPY): columns are f0, f1, ...
	Named bool
	// Path is the file it came from, for errors.
	Path string
}

// Limits bound what a file may hold. Zero fields mean the defaults.
type Limits struct {
	Bytes int64 // of the file; 0 means 8 GiB
	Cells int64 // rows times columns; 0 means 500 million
	// Memory bounds what the values of a compressed file take; 0 means 64 times the
	// file's bytes, and 512 MiB at least.
	Memory int64
	// Texts are the columns of a CSV file that are texts, whatever they look like.
	Texts []string
}

func defaultMemory(size int64) int64 { return max(512<<20, 64*size) }

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 8 << 30
	}
	if l.Cells == 0 {
		l.Cells = 500_000_000
	}
	return l
}

func (l Limits) check(path string, rows, columns int64) error {
	if columns > 0 && rows > l.Cells/columns {
		return fmt.Errorf("read %s: %d rows of %d columns are over the limit of %d cells", path, rows, columns, l.Cells)
	}
	return nil
}

// Open reads a file by its extension (.csv, .tsv, .parquet, .npy) under the
// default limits.
func Open(path string) (*Table, error) { return OpenLimited(path, Limits{}) }

// OpenLimited is Open under the given limits.
func OpenLimited(path string, limits Limits) (*Table, error) {
	read, err := reader(path)
	if err != nil {
		return nil, err
	}
	return openWith(path, limits, read)
}

func openWith(path string, limits Limits, read readFunc) (*Table, error) {
	limits = limits.withDefaults()
	// Asked before opening: opening a pipe would wait for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open table: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open table %s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open table: %w", err)
	}
	defer f.Close()
	if info.Size() > limits.Bytes {
		return nil, fmt.Errorf("read %s: %d bytes are over the limit of %d", path, info.Size(), limits.Bytes)
	}
	t, err := read(f, info.Size(), path, limits)
	if err != nil {
		return nil, err
	}
	t.Path = path
	return t, t.check()
}

type readFunc func(f source, size int64, path string, limits Limits) (*Table, error)

// source is what the readers need of a file.
type source interface {
	Read(p []byte) (int, error)
	ReadAt(p []byte, off int64) (int, error)
	Seek(offset int64, whence int) (int64, error)
}

// Extensions are those of the files that Open reads.
var Extensions = []string{".csv", ".tsv", ".parquet", ".pq", ".npy"}

func reader(path string) (readFunc, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".csv", ".tsv":
		return readCSV, nil
	case ".parquet", ".pq":
		return readParquet, nil
	case ".npy":
		return readNPY, nil
	}
	return nil, fmt.Errorf("open table %s: the extension is none of %s", path, strings.Join(Extensions, ", "))
}

func (t *Table) check() error {
	seen := map[string]bool{}
	for i := range t.Columns {
		c := &t.Columns[i]
		if seen[c.Name] {
			return fmt.Errorf("read %s: two columns are called %q", t.Path, c.Name)
		}
		seen[c.Name] = true
		if c.Len() != t.Rows {
			return fmt.Errorf("read %s: column %q has %d rows, the table %d", t.Path, c.Name, c.Len(), t.Rows)
		}
	}
	return nil
}

// Column returns the column of that name, or nil.
func (t *Table) Column(name string) *Column {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i]
		}
	}
	return nil
}

// Len returns the number of rows.
func (c *Column) Len() int {
	switch c.Type {
	case Float64:
		return len(c.F64)
	case Float32:
		return len(c.F32)
	case Int64:
		return len(c.I64)
	case String:
		return len(c.Str)
	}
	return len(c.Times)
}

// Missing reports whether row i has no value.
func (c *Column) Missing(i int) bool {
	switch c.Type {
	case Float64:
		return math.IsNaN(c.F64[i])
	case Float32:
		return math.IsNaN(float64(c.F32[i]))
	case Int64:
		return c.Null != nil && c.Null[i]
	case String:
		return c.Str[i] == ""
	}
	return c.Times[i].IsZero()
}

// Float64s returns the values as float64, missing ones as NaN; ok is false for
// text and times.
func (c *Column) Float64s() (out []float64, ok bool) {
	switch c.Type {
	case Float64:
		return c.F64, true
	case Float32:
		out = make([]float64, len(c.F32))
		for i, v := range c.F32 {
			out[i] = float64(v)
		}
		return out, true
	case Int64:
		out = make([]float64, len(c.I64))
		for i, v := range c.I64 {
			out[i] = float64(v)
			if c.Missing(i) {
				out[i] = math.NaN()
			}
		}
		return out, true
	}
	return nil, false
}

// Strings returns the values as text: numbers in their shortest form, times in
// RFC 3339, missing values as "".
func (c *Column) Strings() []string {
	if c.Type == String {
		return c.Str
	}
	out := make([]string, c.Len())
	for i := range out {
		out[i] = c.text(i)
	}
	return out
}

func (c *Column) text(i int) string {
	if c.Missing(i) {
		return ""
	}
	switch c.Type {
	case Float64:
		return strconv.FormatFloat(c.F64[i], 'g', -1, 64)
	case Float32:
		return strconv.FormatFloat(float64(c.F32[i]), 'g', -1, 32)
	case Int64:
		return strconv.FormatInt(c.I64[i], 10)
	case Time:
		return c.Times[i].Format(time.RFC3339Nano)
	}
	return c.Str[i]
}

// TimeValues returns the values as times. Text must be RFC 3339 or a date and
// time in UTC; numbers are refused, because their unit is unknown. A missing time
// is an error.
func (c *Column) TimeValues() ([]time.Time, error) {
	switch c.Type {
	case Time:
		for i, t := range c.Times {
			if t.IsZero() {
				return nil, &TimeError{Column: c.Name, Row: i + 1}
			}
		}
		return c.Times, nil
	case String:
		out := make([]time.Time, len(c.Str))
		for i, s := range c.Str {
			t, ok := parseTime(s)
			if !ok {
				return nil, &TimeError{Column: c.Name, Row: i + 1, Text: s}
			}
			out[i] = t
		}
		return out, nil
	}
	return nil, fmt.Errorf("column %q is %s, not a time", c.Name, c.Type)
}

// TimeError is a cell that is no time. Row counts from 1, as people do. Text is what the
// cell has, empty where it is missing; the message is without it, as it may be private.
type TimeError struct {
	Column string
	Row    int
	Text   string
}

// Error says where the cell is.
func (e *TimeError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("column %q row %d: the time is missing", e.Column, e.Row)
	}
	return fmt.Sprintf("column %q row %d: not a time in RFC 3339", e.Column, e.Row)
}

var timeLayouts = []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"}

func parseTime(s string) (time.Time, bool) {
	if len(s) < len("2006-01-02") || s[4] != '-' || s[7] != '-' {
		return time.Time{}, false
	}
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// Stats returns the column for drift statistics. kind "" means numeric for
// numbers and categorical for text; times have KindNone.
func (c *Column) Stats(kind stats.Kind) (stats.Column, error) {
	out := stats.Column{Name: c.Name, Kind: kind}
	numbers, numeric := c.Float64s()
	switch {
	case c.Type == Time || kind == stats.KindNone:
		out.Kind = stats.KindNone
		return out, nil
	case numeric:
		out.Numbers, out.Integer = numbers, c.Type == Int64 && c.Null == nil
		if kind == "" {
			out.Kind = stats.KindNumeric
		}
		return out, nil
	case kind == stats.KindNumeric:
		return out, fmt.Errorf("column %q holds text, not numbers", c.Name)
	}
	out.Kind, out.Strings = stats.KindCategorical, c.Str
	return out, nil
}
