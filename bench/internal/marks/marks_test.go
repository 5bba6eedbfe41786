package marks

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.md")
	for _, c := range []struct{ is, want string }{
		{"a\n<x>\nold\n</x>\nb\n", "a\n<x>\nnew\n</x>\nb\n"},
		{"<x></x>", "<x>\nnew\n</x>"},
		{"a <x> b", ""},
		{"a </x> <x> b", ""},
		{"a", ""},
	} {
		if err := os.WriteFile(path, []byte(c.is), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Replace(path, "<x>", "</x>", "new\n")
		got, readErr := os.ReadFile(path)
		if want := c.want; readErr != nil || (err == nil) != (want != "") || want != "" && string(got) != want || want == "" && string(got) != c.is {
			t.Errorf("%q becomes %q, %v", c.is, got, err)
		}
	}
}
