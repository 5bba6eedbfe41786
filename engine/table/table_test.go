package table

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/pellucid/pellucid/engine"
)

func open(t *testing.T, name string) *Table {
	t.Helper()
	tab, err := Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestTextsThatLookLikeNumbers: a column that is said to be of texts stays as it is written.
func TestTextsThatLookLikeNumbers(t *testing.T) {
	path := writeFile(t, "a.csv", "code,n\n1e3,1e3\n07,07\n,\n7.0,7.0\n-0.0,-0.0\n")
	tab, err := OpenLimited(path, Limits{Texts: []string{"code", "another"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tab.Column("code").Strings(), []string{"1e3", "07", "", "7.0", "-0.0"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := tab.Column("n").Strings(), []string{"1000", "7", "", "7", "0"}; !slices.Equal(got, want) && got[4] != "-0" {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestDecimals: those of Parquet, of any width, are the nearest floats.
func TestDecimals(t *testing.T) {
	tab, nan := open(t, "decimals.parquet"), math.NaN()
	for name, want := range map[string][]float64{
		"small": {1.25, -9.99, nan, 0.01}, "money": {12345678901234.5678, -0.0001, 0, nan},
		"wide": {1234567890123456789012345678.0123456789, -0.1, 1e-10, -1e28}, "whole": {1e60, -3, nan, 0},
	} {
		got, ok := tab.Column(name).Float64s()
		if !ok || !slices.EqualFunc(got, want, func(a, b float64) bool { return a == b || a != a && b != b }) {
			t.Errorf("%s: %v, %t, want %v", name, got, ok, want)
		}
	}
}

// The files were written by pandas and pyarrow (testdata/make_tables.py).
func TestPandasFiles(t *testing.T) {
	for _, name := range []string{"pandas.parquet", "v2_zstd.parquet", "pandas.csv"} {
		tab := open(t, name)
		if tab.Rows != 7 || !tab.Named {
			t.Fatalf("%s: %d rows", name, tab.Rows)
		}
		f := tab.Column("f64").F64
		if f[0] != 0.1 || f[3] != 1e300 || f[4] != 5e-324 || !math.IsNaN(f[2]) {
			t.Errorf("%s: f64 %v", name, f)
		}
		if got, _ := tab.Column("f32").Float64s(); float32(got[0]) != 0.1 || !math.IsNaN(got[3]) {
			t.Errorf("%s: f32 %v", name, got)
		}
		for col, want := range map[string][]string{
			"i64":      {"0", "1000000000000", "2000000000000", "3000000000000", "4000000000000", "5000000000000", "6000000000000"},
			"i32":      {"-3", "-2", "-1", "0", "1", "2", "3"},
			"u32":      {"4000000000", "4000000001", "4000000002", "4000000003", "4000000004", "4000000005", "4000000006"},
			"flag":     {"1", "0", "1", "0", "1", "0", "1"},
			"text":     {"a", "b", "", "d,e", "quo\"te", "ä", "a"},
			"nullable": {"1", "", "3", "4", "", "6", "7"},
		} {
			if got := tab.Column(col).Strings(); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s %q", name, col, got)
			}
		}
		when, err := tab.Column("when").TimeValues()
		if err != nil || !when[1].Equal(time.Date(2013, 1, 1, 6, 15, 0, 0, time.UTC)) {
			t.Errorf("%s: when %v, %v", name, when, err)
		}
		if c := tab.Column("cat"); c != nil && !reflect.DeepEqual(c.Strings(), tab.Column("text").Strings()) {
			t.Errorf("%s: dictionary column %q", name, c.Strings())
		}
		if _, numeric := tab.Column("nullable").Float64s(); !numeric || tab.Column("nullable").Type != Int64 {
			t.Errorf("%s: nullable is %s", name, tab.Column("nullable").Type)
		}
	}
}

func TestNPY(t *testing.T) {
	for _, name := range []string{"c.npy", "fortran.npy", "big_endian.npy"} {
		tab := open(t, name)
		got, _ := tab.Column("f2").Float64s()
		if tab.Rows != 2 || len(tab.Columns) != 3 || tab.Named || !reflect.DeepEqual(got, []float64{0.5, 1.25}) {
			t.Errorf("%s: %+v", name, tab)
		}
	}
	if got := open(t, "ints.npy").Columns[0].I64; !reflect.DeepEqual(got, []int64{-1, 2, 3}) {
		t.Errorf("ints %v", got)
	}
}

func TestRoundTrip(t *testing.T) {
	want := open(t, "pandas.parquet")
	for _, ext := range []string{".csv", ".parquet"} {
		var b bytes.Buffer
		write := want.WriteCSV
		if ext == ".parquet" {
			write = want.WriteParquet
		}
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		got, err := Open(writeFile(t, "out"+ext, b.String()))
		if err != nil {
			t.Fatal(err)
		}
		for i := range want.Columns {
			w, g := &want.Columns[i], &got.Columns[i]
			if w.Name != g.Name || !reflect.DeepEqual(w.Strings(), g.Strings()) {
				t.Errorf("%s: column %q %q is %q %q", ext, w.Name, w.Strings(), g.Name, g.Strings())
			}
		}
	}
}

func TestCSVTyping(t *testing.T) {
	path := writeFile(t, "x.csv", "\xef\xbb\xbfa,b,c,d,e,f\n1,,1,2013-01-01,1,\n2,1.5,x,2013-01-02T03:04:05Z,NaN,\n,2,3,,2,\n")
	tab, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Type{"a": Int64, "b": Float64, "c": String, "d": Time, "e": Float64, "f": Float64}
	for name, typ := range want {
		if tab.Column(name) == nil || tab.Column(name).Type != typ {
			t.Errorf("column %s: %+v", name, tab.Column(name))
		}
	}
	if got := tab.Column("a").Strings(); !reflect.DeepEqual(got, []string{"1", "2", ""}) {
		t.Errorf("a: %q", got)
	}
	if got := tab.Column("c").Strings(); !reflect.DeepEqual(got, []string{"1", "x", "3"}) {
		t.Errorf("c, widened late: %q", got)
	}
}

func TestBadFilesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"":                   "header",
		"a,b\n1\n":           "line 2",
		"a,a\n1,2\n":         `"a"`,
		"1.5,2.5\n3.5,4.5\n": "header",
		"a\n\"x\n":           "line",
	} {
		path := writeFile(t, "bad.csv", text)
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	}
	good, err := os.ReadFile("testdata/pandas.parquet")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"cut.parquet": string(good[:len(good)/2]), "x.npy": "\x93NUMPY\x01\x00\x10\x00{'descr': '<f8'}", "x.parquet": "PAR1", "x.json": "{}",
		"huge.npy": "\x93NUMPY\x01\x00\x50\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999999), }",
	} {
		if _, err := Open(writeFile(t, name, data)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	for _, name := range []string{"nested.parquet", "text.npy"} {
		if _, err := Open(filepath.Join("testdata", name)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := OpenLimited(writeFile(t, "x.csv", "a,b\n1,2\n3,4\n"), Limits{Cells: 3}); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("cells over the limit: %v", err)
	}
}

func TestInputs(t *testing.T) {
	tab, err := Open(writeFile(t, "x.csv", "extra,b,a,c\n9,1,2.5,x\n9,,4,y\n"))
	if err != nil {
		t.Fatal(err)
	}
	matrix := func(d engine.DType, features ...engine.Feature) *engine.Info {
		return &engine.Info{Inputs: []engine.Spec{{Name: "input", DType: d, Shape: []int{-1, len(features)}}}, Features: features}
	}
	in, err := tab.Inputs(matrix(engine.Float32, engine.Feature{Name: "a"}, engine.Feature{Name: "b"}))
	if err != nil {
		t.Fatal(err)
	}
	x := engine.Data[float32](in.Get("input"))
	if len(x) != 4 || x[0] != 2.5 || x[1] != 1 || x[2] != 4 || x[3] == x[3] {
		t.Errorf("matrix %v", x)
	}
	if in, err = tab.Inputs(matrix(engine.Float64, engine.Feature{Name: "a"}, engine.Feature{Name: "c", Categorical: true})); err != nil || len(in) != 2 || engine.Data[string](in.Get("c"))[1] != "y" {
		t.Errorf("named columns: %v, %v", in, err)
	}
	if _, err = tab.Inputs(matrix(engine.Float64, engine.Feature{Name: "a"}, engine.Feature{Name: "c"})); err == nil || !strings.Contains(err.Error(), `"c"`) {
		t.Errorf("text in a numeric feature: %v", err)
	}
	if _, err = tab.Inputs(matrix(engine.Float64, engine.Feature{Name: "a"}, engine.Feature{Name: "zz"})); err == nil || !strings.Contains(err.Error(), "zz") {
		t.Errorf("absent feature: %v", err)
	}
	in, err = open(t, "c.npy").Inputs(matrix(engine.Float32, engine.Feature{Name: "p"}, engine.Feature{Name: "q"}, engine.Feature{Name: "r"}))
	if err != nil || len(engine.Data[float32](in.Get("input"))) != 6 {
		t.Errorf("by position: %v, %v", in, err)
	}
	cols := &engine.Info{Inputs: []engine.Spec{{Name: "c", DType: engine.String, Shape: []int{-1, 1}}, {Name: "a", DType: engine.Float32, Shape: []int{-1, 1}}}}
	if in, err = tab.Inputs(cols); err != nil || !reflect.DeepEqual(in.Get("a").Shape(), []int{2, 1}) {
		t.Errorf("columns: %v, %v", in, err)
	}
}

func TestTextMatrix(t *testing.T) {
	tab, err := Open(writeFile(t, "x.csv", "a,b\nx,1\n,2.5\n"))
	if err != nil {
		t.Fatal(err)
	}
	info := &engine.Info{Inputs: []engine.Spec{{Name: "X", DType: engine.String, Shape: []int{-1, 2}}}}
	in, err := tab.Inputs(info)
	if err != nil {
		t.Fatal(err)
	}
	if got := engine.Data[string](in.Get("X")); !reflect.DeepEqual(got, []string{"x", "1", "", "2.5"}) {
		t.Errorf("text %q", got)
	}
}

func fuzz(f *testing.F, ext string) {
	f.Fuzz(func(t *testing.T, data []byte) {
		read, err := reader("x" + ext)
		if err != nil {
			t.Fatal(err)
		}
		tab, err := read(bytes.NewReader(data), int64(len(data)), "x"+ext, Limits{Cells: 1 << 16}.withDefaults())
		if err != nil {
			return
		}
		for i := range tab.Columns {
			if n := len(tab.Columns[i].Strings()); n != tab.Rows {
				t.Fatalf("column %d has %d rows of %d", i, n, tab.Rows)
			}
		}
	})
}

func FuzzCSV(f *testing.F) {
	f.Add([]byte("a,b\n1,x\n,2013-01-01\n1.5,\n"))
	f.Add([]byte("a\n\n1\ntrue\n"))
	fuzz(f, ".csv")
}

func FuzzParquet(f *testing.F) {
	for _, name := range []string{"pandas.parquet", "v2_zstd.parquet"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	fuzz(f, ".parquet")
}

// TestLZ4IsRefused: fuzzing found a file of 6 KB that took all memory there was.
func TestLZ4IsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lz4.parquet")
	type row struct {
		A float64 `parquet:"a"`
	}
	if err := parquet.WriteFile(path, []row{{1}, {2}}, parquet.Compression(&parquet.Lz4Raw)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "LZ4") {
		t.Fatalf("error %v", err)
	}
}

func FuzzNPY(f *testing.F) {
	for _, name := range []string{"c.npy", "ints.npy"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	fuzz(f, ".npy")
}

// TestNumbersThatAreNames holds that a named column of numbers is looked up by
// value where the model's categories are named by numbers, and is codes elsewhere.
func TestNumbersThatAreNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(path, []byte("shop,colour,flag,size\n102,1,True,0.5\n,0,False,1\n100.0,,,2\n7,1,True,3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	table, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	info := &engine.Info{
		Format: "lightgbm", Missing: true,
		Inputs: []engine.Spec{{Name: "input", DType: engine.Float64, Shape: []int{-1, 4}}},
		Features: []engine.Feature{
			{Name: "shop", Categorical: true, Categories: []string{"100", "101", "102"}},
			{Name: "colour", Categorical: true, Categories: []string{"red", "blue"}},
			{Name: "flag", Categorical: true, Categories: []string{"False", "True"}},
			{Name: "size"},
		},
	}
	in, err := table.Inputs(info)
	if err != nil {
		t.Fatal(err)
	}
	bound, _, err := engine.Bind(info, in)
	if err != nil {
		t.Fatal(err)
	}
	nan := math.NaN()
	want := []float64{2, 1, 1, 0.5, nan, 0, 0, 1, 0, nan, nan, 2, nan, 1, 1, 3}
	for i, v := range engine.Data[float64](bound[0].Tensor) {
		if v != want[i] && !(math.IsNaN(v) && math.IsNaN(want[i])) {
			t.Errorf("element %d is %v, want %v", i, v, want[i])
		}
	}
}
