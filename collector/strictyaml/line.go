package strictyaml

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// At puts the line of a value before err, for types that decode themselves:
// unmarshal is what their UnmarshalYAML was given. The decoder tells it of a value
// that it cannot read, so it is asked for one that no file can hold.
func At(unmarshal func(any) error, err error) error {
	var kind *yaml.TypeError
	for _, into := range []any{new([]struct{}), new(map[string]struct{})} {
		if !errors.As(unmarshal(into), &kind) || len(kind.Errors) == 0 {
			continue
		}
		if line, _, ok := strings.Cut(kind.Errors[0], ":"); ok && strings.HasPrefix(line, "line ") {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	return err
}

// Line returns the line on which the value of a key stands, which is named by the
// keys that lead to it; 0 where the file does not have it.
func Line(data []byte, keys ...string) int {
	var root yaml.Node
	if yaml.Unmarshal(data, &root) != nil || len(root.Content) == 0 {
		return 0
	}
	n := root.Content[0]
	for _, key := range keys {
		found := (*yaml.Node)(nil)
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				found = n.Content[i+1]
			}
		}
		if found == nil {
			return 0
		}
		n = found
	}
	return n.Line
}

// words are what to write for the library's names of Go types.
var words = []struct{ prefix, word string }{
	{"[]", "a list"},
	{"map[", "keys with values"},
	{"int", "a whole number"},
	{"uint", "a whole number"},
	{"float", "a number"},
	{"bool", "true or false"},
	{"string", "text"},
}

// inWords replaces the Go type at the end of the library's message.
func inWords(e string) string {
	at := strings.LastIndex(e, " into ")
	if at < 0 || !strings.Contains(e, "cannot unmarshal") {
		return e
	}
	kind := strings.TrimLeft(e[at+len(" into "):], "*")
	for _, w := range words {
		if strings.HasPrefix(kind, w.prefix) {
			return e[:at] + " into " + w.word
		}
	}
	return e[:at] + " into keys with values"
}
