package strictyaml

import (
	"errors"
	"strings"
	"testing"
)

type sample struct {
	Name  string `yaml:"name"`
	Inner struct {
		N int `yaml:"n"`
	} `yaml:"inner"`
	Size size `yaml:"size"`
}

// size is a type that decodes itself, and takes nothing.
type size struct{}

func (*size) UnmarshalYAML(unmarshal func(any) error) error {
	return At(unmarshal, errors.New("no size"))
}

func TestLine(t *testing.T) {
	data := []byte("a: 1\nb:\n  c:\n\n    d: x\n")
	for keys, want := range map[string]int{"a": 1, "b c d": 5, "b x": 0, "a b": 0, "z": 0} {
		if got := Line(data, strings.Fields(keys)...); got != want {
			t.Errorf("%s: line %d, want %d", keys, got, want)
		}
	}
	if Line([]byte("["), "a") != 0 {
		t.Error("a line of what is no YAML")
	}
}

func TestDecode(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"good", "name: a\ninner: {n: 3}\n", ""},
		{"empty", "", ""},
		{"only a comment", "# nothing\n", ""},
		{"unknown key", "name: a\nnaem: b\n", "read f.yaml: line 2: unknown key naem"},
		{"unknown inner key", "inner:\n  n: 1\n  m: 2\n", "line 3: unknown key m"},
		{"wrong type", "inner:\n  n: many\n", "line 2: cannot unmarshal !!str `many` into a whole number"},
		{"list for a mapping", "inner: [1]\n", "into keys with values"},
		{"mapping for text", "name: {a: 1}\n", "into text"},
		{"its own type", "name: a\nsize: abc\n", "read f.yaml: line 2: no size"},
		{"its own type, a mapping", "name: a\nsize: {a: 1}\n", "read f.yaml: line 2: no size"},
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
