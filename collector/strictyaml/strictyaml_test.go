package strictyaml

import (
	"strings"
	"testing"
)

type sample struct {
	Name  string `yaml:"name"`
	Inner struct {
		N int `yaml:"n"`
	} `yaml:"inner"`
}

func TestDecode(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"good", "name: a\ninner: {n: 3}\n", ""},
		{"empty", "", ""},
		{"only a comment", "# nothing\n", ""},
		{"unknown key", "name: a\nnaem: b\n", "read f.yaml: line 2: unknown key naem"},
		{"unknown inner key", "inner:\n  n: 1\n  m: 2\n", "line 3: unknown key m"},
		{"wrong type", "inner:\n  n: many\n", "line 2: cannot unmarshal"},
		{"twice", "name: a\nname: b\n", `line 2: mapping key "name" already defined`},
		{"two documents", "name: a\n---\nname: b\n", "more than one document"},
		{"alias", "name: &x a\ninner: *x\n", "line 2: aliases are not allowed"},
		{"syntax", "name: [a\n", "line"},
		{"too large", "name: " + strings.Repeat("a", MaxBytes), "over the limit"},
		{"too deep", "name: " + strings.Repeat("[", 100) + strings.Repeat("]", 100), "nested deeper"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s sample
			err := Decode([]byte(c.in), "f.yaml", &s)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("name: a\ninner: {n: 3}\n")
	f.Fuzz(func(t *testing.T, in string) {
		var s sample
		if err := Decode([]byte(in), "f.yaml", &s); err != nil && !strings.Contains(err.Error(), "f.yaml") {
			t.Fatalf("error does not name the file: %v", err)
		}
	})
}
