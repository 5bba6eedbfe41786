package table

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kind is what a CSV column is taken for so far, narrowest first.
type kind uint8

const (
	kindEmpty kind = iota
	kindBool
	kindInt
	kindFloat
	kindTime
	kindText
)

// csvColumn collects one column. Values are kept as long as the kind holds;
// when it has to widen, the file is read a second time.
type csvColumn struct {
	kind kind
	col  Column
	null bool
}

// readCSV reads a file with a header. A column is of numbers when every value of
// it is; the empty field is missing.
func readCSV(f source, _ int64, path string, limits Limits) (*Table, error) {
	var cols []csvColumn
	for {
		again, t, err := csvPass(f, path, limits, &cols)
		if err != nil || !again {
			return t, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
	}
}

// csvPass reads the file once. again says that a column's kind widened on the
// way, so that its values are not all kept; the kinds are then final.
func csvPass(f source, path string, limits Limits, cols *[]csvColumn) (again bool, t *Table, err error) {
	r := csv.NewReader(skipBOM(bufio.NewReaderSize(f, 1<<20)))
	r.ReuseRecord = true
	if strings.EqualFold(filepath.Ext(path), ".tsv") {
		r.Comma = '\t'
	}
	header, err := readHeader(r, path)
	if err != nil {
		return false, nil, err
	}
	if *cols == nil {
		*cols = make([]csvColumn, len(header))
	}
	for i := range *cols {
		(*cols)[i].col = Column{Name: header[i]}
		(*cols)[i].null = false
		if slices.Contains(limits.Texts, header[i]) {
			(*cols)[i].kind = kindText
		}
	}
	rows := 0
	for ; ; rows++ {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, nil, fmt.Errorf("read %s: %w", path, err)
		}
		if err := limits.check(path, int64(rows)+1, int64(len(header))); err != nil {
			return false, nil, err
		}
		for i, s := range rec {
			if (*cols)[i].add(s, rows, again) {
				again = true
			}
		}
	}
	if again {
		return true, nil, nil
	}
	t = &Table{Rows: rows, Named: true}
	for i := range *cols {
		t.Columns = append(t.Columns, (*cols)[i].finish(rows))
	}
	return false, t, nil
}

// maxColumns bounds the columns of a table.
const maxColumns = 1 << 20

func skipBOM(r *bufio.Reader) *bufio.Reader {
	if b, err := r.Peek(3); err == nil && string(b) == "\xef\xbb\xbf" {
		_, _ = r.Discard(3) // peeked: cannot fail
	}
	return r
}

func readHeader(r *csv.Reader, path string) ([]string, error) {
	rec, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: the file is empty, a header is needed", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	header := slices.Clone(rec)
	numbers, fractions := 0, 0
	for i, h := range header {
		header[i] = strings.TrimSpace(strings.Clone(h))
		if header[i] == "" {
			header[i] = "Unnamed: " + strconv.Itoa(i) // as pandas names it
		}
		if _, ok := parseFloat(h); ok {
			numbers++
			if _, err := strconv.ParseUint(h, 10, 32); err != nil {
				fractions++
			}
		}
	}
	if numbers == len(header) && fractions > 0 {
		return nil, fmt.Errorf("read %s: line 1 holds numbers, a header with column names is needed", path)
	}
	if len(header) > maxColumns {
		return nil, fmt.Errorf("read %s: %d columns, more than %d", path, len(header), maxColumns)
	}
	seen := make(map[string]bool, len(header))
	for _, h := range header {
		if seen[h] {
			return nil, fmt.Errorf("read %s: line 1: two columns are called %q", path, h)
		}
		seen[h] = true
	}
	return header, nil
}

// add takes the value of the given row. It reports whether the kind had to widen
// after values of a narrower kind were kept; once any column has, discard is set
// and only kinds are found out.
func (c *csvColumn) add(s string, row int, discard bool) bool {
	if s == "" {
		if !discard {
			c.keepMissing()
		}
		return false
	}
	widened := false
	for !c.keep(s, discard) {
		// Only missing values so far: nothing is lost by taking another kind.
		widened = widened || c.kind != kindEmpty
		c.widen(s, row)
	}
	return widened
}

// keepMissing takes an empty field. A column that has no kind yet counts them.
func (c *csvColumn) keepMissing() {
	c.null = true
	switch c.kind {
	case kindEmpty, kindFloat:
		c.col.F64 = append(c.col.F64, math.NaN())
	case kindBool, kindInt:
		c.col.I64 = append(c.col.I64, math.MinInt64)
		c.markNull()
	case kindTime:
		c.col.Times = append(c.col.Times, time.Time{})
	case kindText:
		c.col.Str = append(c.col.Str, "")
	}
}

func (c *csvColumn) markNull() {
	for len(c.col.Null) < len(c.col.I64)-1 {
		c.col.Null = append(c.col.Null, false)
	}
	c.col.Null = append(c.col.Null, true)
}

// keep takes a value if it fits the kind.
func (c *csvColumn) keep(s string, discard bool) bool {
	switch c.kind {
	case kindEmpty:
		return false
	case kindBool:
		v, ok := parseBool(s)
		if ok && !discard {
			c.col.I64 = append(c.col.I64, v)
		}
		return ok
	case kindInt:
		v, err := strconv.ParseInt(s, 10, 64)
		if err == nil && !discard {
			c.col.I64 = append(c.col.I64, v)
		}
		return err == nil
	case kindFloat:
		v, ok := parseFloat(s)
		if ok && !discard {
			c.col.F64 = append(c.col.F64, v)
		}
		return ok
	case kindTime:
		v, ok := parseTime(s)
		if ok && !discard {
			c.col.Times = append(c.col.Times, v)
		}
		return ok
	}
	if !discard {
		c.col.Str = append(c.col.Str, strings.Clone(s))
	}
	return true
}

// widen moves to the next kind that could hold s. The missing values of a column
// without a kind are carried over.
func (c *csvColumn) widen(s string, row int) {
	from := c.kind
	switch from {
	case kindEmpty:
		c.kind = firstKind(s)
	case kindInt:
		c.kind = kindFloat
		if _, ok := parseFloat(s); !ok {
			c.kind = kindText
		}
	default:
		c.kind = kindText
	}
	if from != kindEmpty {
		return
	}
	c.col.F64 = nil
	for range row {
		c.keepMissing()
	}
}

func firstKind(s string) kind {
	if _, ok := parseBool(s); ok {
		return kindBool
	}
	if _, err := strconv.ParseInt(s, 10, 64); err == nil {
		return kindInt
	}
	if _, ok := parseFloat(s); ok {
		return kindFloat
	}
	if _, ok := parseTime(s); ok {
		return kindTime
	}
	return kindText
}

func (c *csvColumn) finish(rows int) Column {
	switch c.kind {
	case kindBool, kindInt:
		c.col.Type = Int64
		for c.col.Null != nil && len(c.col.Null) < rows {
			c.col.Null = append(c.col.Null, false)
		}
		for i, null := range c.col.Null {
			if null {
				c.col.I64[i] = 0
			}
		}
	case kindTime:
		c.col.Type = Time
	case kindText:
		c.col.Type = String
	default:
		c.col.Type = Float64
	}
	return c.col
}

func parseBool(s string) (int64, bool) {
	switch s {
	case "true", "True", "TRUE":
		return 1, true
	case "false", "False", "FALSE":
		return 0, true
	}
	return 0, false
}

// parseFloat reads a decimal number, NaN or an infinity: what pandas writes. Go's
// hexadecimal and underscored forms are text.
func parseFloat(s string) (float64, bool) {
	if len(s) == 0 || strings.ContainsAny(s, "xX_pP") {
		return 0, false
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, false
	}
	return v, true
}

// WriteCSV writes the table with a header. Numbers are the shortest that read
// back exactly; missing values are empty.
func (t *Table) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	rec := make([]string, len(t.Columns))
	for i := range t.Columns {
		rec[i] = t.Columns[i].Name
	}
	if err := out.Write(rec); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	for row := range t.Rows {
		for i := range t.Columns {
			rec[i] = t.Columns[i].text(row)
		}
		// The reader skips blank lines: a lone missing value is quoted.
		if len(rec) == 1 && rec[0] == "" {
			out.Flush()
			if _, err := io.WriteString(w, "\"\"\n"); err != nil {
				return fmt.Errorf("write CSV: %w", err)
			}
			continue
		}
		if err := out.Write(rec); err != nil {
			return fmt.Errorf("write CSV: %w", err)
		}
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	return nil
}
