// Package strictyaml decodes the YAML that people write for Pellucid: the
// configuration, model.yaml and rule files. It is the only owner of the YAML
// library.
//
// It never guesses: an unknown key, a repeated key, a second document or a
// value of the wrong type is an error that names the file and the line. Size
// is bounded, and aliases are refused, so that a small file cannot grow large.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxBytes bounds a file. Nothing that a person writes by hand is near it.
const MaxBytes = 1 << 20

// maxDepth bounds nesting, so that decoding cannot exhaust the stack.
const maxDepth = 64

// Decode fills into from data. name is the file's name, for errors. Empty data
// leaves into as it was.
func Decode(data []byte, name string, into any) error {
	if len(data) > MaxBytes {
		return fmt.Errorf("read %s: %d bytes is over the limit of %d", name, len(data), MaxBytes)
	}
	var root yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return fmt.Errorf("read %s: %s", name, clean(err))
	}
	if err := check(&root, 0); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: more than one document", name)
	}
	strict := yaml.NewDecoder(bytes.NewReader(data))
	strict.KnownFields(true)
	if err := strict.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %s", name, clean(err))
	}
	return nil
}

// check refuses what would make a file mean more than it shows.
func check(n *yaml.Node, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("line %d: nested deeper than %d", n.Line, maxDepth)
	}
	if n.Kind == yaml.AliasNode {
		return fmt.Errorf("line %d: aliases are not allowed", n.Line)
	}
	for _, c := range n.Content {
		if err := check(c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// clean puts the library's error on one line and takes Go type names out of it.
func clean(err error) string {
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return strings.TrimPrefix(err.Error(), "yaml: ")
	}
	lines := make([]string, len(te.Errors))
	for i, e := range te.Errors {
		if at := strings.Index(e, " not found in type "); at >= 0 {
			e = strings.Replace(e[:at], "field ", "unknown key ", 1)
		}
		if at := strings.Index(e, " already set in type "); at >= 0 {
			e = e[:at] + " is given twice"
		}
		lines[i] = inWords(e)
	}
	return strings.Join(lines, "; ")
}
