package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/table"
)

// predictInputs reads what --input names: a file of rows, a folder of arrays named after
// the model's inputs, or NAME=FILE.npy for each of them. n is the number of predictions, t
// the file of rows, nil of arrays.
func predictInputs(info *engine.Info, inputs []string) (t *table.Table, in engine.Values, n int, err error) {
	arrays, err := inputArrays(info, inputs)
	if err != nil {
		return nil, nil, 0, err
	}
	if arrays == nil {
		if t, in, err = inputRows(info, inputs[0]); err != nil {
			return nil, nil, 0, err
		}
		return t, in, t.Rows, nil
	}
	for name, path := range arrays {
		x, err := table.OpenTensor(path)
		if err != nil {
			return nil, nil, 0, err
		}
		in = append(in, engine.Named{Name: name, Tensor: x})
	}
	if in, err = table.Halves(info, in); err == nil {
		in, n, err = engine.Bind(info, in)
	}
	if err != nil {
		return nil, nil, 0, fmt.Errorf("fit %s to the model: %w", strings.Join(inputs, ", "), err)
	}
	return nil, in, n, nil
}

// inputArrays returns the arrays by the input that each is for, nil where there is one file
// of rows.
func inputArrays(info *engine.Info, inputs []string) (map[string]string, error) {
	arrays := map[string]string{}
	for _, s := range inputs {
		name, path, named := strings.Cut(s, "=")
		if !named {
			break
		}
		if _, twice := arrays[name]; twice {
			return nil, usage(fmt.Errorf("--input names %q twice", name))
		}
		if !strings.EqualFold(filepath.Ext(path), ".npy") {
			return nil, usage(fmt.Errorf("--input %s: an array of its own is a file .npy", s))
		}
		arrays[name] = path
	}
	switch {
	case len(arrays) == len(inputs):
		return arrays, nil
	case len(inputs) > 1:
		return nil, usage(errors.New("several --input are each NAME=FILE.npy"))
	}
	path := inputs[0]
	if isFolder(path) {
		return folderArrays(info, path)
	}
	if strings.EqualFold(filepath.Ext(path), ".npy") && len(info.Inputs) == 1 && len(info.Inputs[0].Shape) != 2 {
		// Rows that are laid out flat fit too; a file that is none is told of where it is read.
		if x, err := table.OpenTensor(path); err == nil && len(x.Shape()) == len(info.Inputs[0].Shape) {
			return map[string]string{info.Inputs[0].Name: path}, nil
		}
	}
	return nil, nil
}

// folderArrays are NAME.npy of a folder for each input of the model.
func folderArrays(info *engine.Info, dir string) (map[string]string, error) {
	arrays := map[string]string{}
	for _, spec := range info.Inputs {
		if !filepath.IsLocal(spec.Name+".npy") || strings.ContainsAny(spec.Name, `/\`) {
			return nil, fmt.Errorf("input %q cannot be the name of a file: give --input '%s=FILE.npy'", spec.Name, spec.Name)
		}
		path := filepath.Join(dir, spec.Name+".npy")
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("find input %q: %w", spec.Name, err)
		}
		arrays[spec.Name] = path
	}
	return arrays, nil
}

// blockElements is about how many numbers of the inputs are given to a model at once.
const blockElements = 1 << 22

// rowsAtOnce is how many rows a run takes: all where the inputs are no rows.
func rowsAtOnce(in engine.Values, n int) int {
	width := 0
	for _, v := range in {
		if len(v.Tensor.Shape()) == 0 || v.Tensor.Rows() != n {
			return n
		}
		width += v.Tensor.RowLen()
	}
	return max(1, min(blockRows, blockElements/max(width, 1)))
}
