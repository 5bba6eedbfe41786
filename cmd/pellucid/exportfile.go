package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/engine/table"
)

// rowsOut is what an export is written to: a head, rows, an end.
type rowsOut interface {
	begin(head []table.Column) error
	row(cells []any) error
	end() error
}

func isParquet(path string) bool { return strings.EqualFold(filepath.Ext(path), ".parquet") }

func outTo(w io.Writer, parquet bool) rowsOut {
	if parquet {
		return &parquetOut{to: w}
	}
	return &csvOut{csv.NewWriter(w)}
}

type csvOut struct{ w *csv.Writer }

func (o *csvOut) begin(head []table.Column) error {
	names := make([]string, len(head))
	for i := range head {
		names[i] = head[i].Name
	}
	return o.w.Write(names)
}

func (o *csvOut) row(cells []any) error {
	record := make([]string, len(cells))
	for i, v := range cells {
		record[i] = plain(v)
	}
	return o.w.Write(record)
}

func (o *csvOut) end() error {
	o.w.Flush()
	return o.w.Error()
}

// plain writes a stored value as a CSV field; a missing one is empty.
func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 32)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case time.Time:
		return v.Format(time.RFC3339Nano)
	}
	return strings.TrimSpace(fmt.Sprint(v))
}

type parquetOut struct {
	to   io.Writer
	w    *table.Writer
	head []table.Column
}

func (o *parquetOut) begin(head []table.Column) error {
	o.head = head
	var err error
	o.w, err = table.NewWriter(o.to, head)
	return err
}

func (o *parquetOut) row(cells []any) error {
	for i := range cells {
		cells[i] = typed(o.head[i].Type, cells[i])
	}
	return o.w.Write(cells)
}

// end writes a file without columns where there was no row.
func (o *parquetOut) end() error {
	if o.w == nil {
		if err := o.begin(nil); err != nil {
			return err
		}
	}
	return o.w.Close()
}

// typed is a cell as its column's type has it. The writer refuses what does not fit.
func typed(t table.Type, v any) any {
	if v == nil {
		return nil
	}
	if t == table.String {
		return plain(v)
	}
	if s, ok := v.(string); ok { // as what is no number of JSON is shown
		if x, err := strconv.ParseFloat(s, 64); err == nil && t == table.Float64 {
			return x
		} else if err == nil && t == table.Float32 {
			return float32(x)
		}
	}
	if t == table.Float64 {
		switch x := v.(type) {
		case float32:
			return float64(x)
		case int64:
			if y := float64(x); int64(y) == x {
				return y
			}
		}
	}
	return v
}
