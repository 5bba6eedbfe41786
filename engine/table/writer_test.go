package table

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWriter writes rows over several groups, with missing ones among them, and reads them.
func TestWriter(t *testing.T) {
	columns := []Column{{Name: "z", Type: Float64}, {Name: "a", Type: Int64}, {Name: "f", Type: Float32}, {Name: "text", Type: String}, {Name: "at", Type: Time}}
	const rows = groupRows + 1000
	began := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	row := func(i int) []any {
		if i%7 == 3 {
			return make([]any, len(columns))
		}
		return []any{float64(i) / 3, int64(i) - 5, float32(i) / 7, fmt.Sprint("row ", i%11), began.Add(time.Duration(i) * time.Second)}
	}
	path := filepath.Join(t.TempDir(), "rows.parquet")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(f, columns)
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if err := w.Write(row(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Rows != rows || len(got.Columns) != len(columns) {
		t.Fatalf("%d rows of %d columns", got.Rows, len(got.Columns))
	}
	for k := range columns {
		c := &got.Columns[k]
		if c.Name != columns[k].Name || c.Type != columns[k].Type {
			t.Fatalf("column %d is %s of %s", k, c.Name, c.Type)
		}
		for i := range rows {
			have := c.cell(i)
			if at, ok := have.(time.Time); ok {
				have = at.UTC()
			}
			if want := row(i)[k]; have != want {
				t.Fatalf("%s of row %d is %v, want %v", c.Name, i, have, want)
			}
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	var b bytes.Buffer
	if _, err := NewWriter(&b, []Column{{Name: "a"}, {Name: "b"}, {Name: "a"}}); err == nil || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("two of one name: %v", err)
	}
	w, err := NewWriter(&b, []Column{{Name: "a", Type: Float64}, {Name: "b", Type: String}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write([]any{math.NaN(), "x"}); err != nil {
		t.Error(err)
	}
	for _, row := range [][]any{{1.5}, {"1.5", "x"}, {1.5, []byte("x")}, {float32(1.5), "x"}} {
		if err := w.Write(row); err == nil {
			t.Errorf("%v is taken", row)
		}
	}
}
