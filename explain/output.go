package explain

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// output is one explained output of a tree model: the margin it comes from, and
// how (a binary classifier of one margin has the second class's; the first one's
// is its negative, or 1 minus it where the trees add up probabilities).
type output struct {
	name        string
	margin      int
	sign, shift float64
}

// outputs returns what an output's name asks for: all margins for "", the
// output's own name or "margin", else one by index or class.
func (f *forest) outputs(name string) ([]output, error) {
	k := f.ensemble.Outputs
	all := make([]output, k)
	for i := range all {
		all[i] = output{name: f.outputName(i), margin: i, sign: 1}
	}
	base, index, indexed := splitIndex(name)
	if !indexed && (name == "" || f.isOwn(name)) {
		return all, nil
	}
	if indexed && f.isOwn(base) {
		return f.column(index, base != tree.MarginName)
	}
	for i, c := range f.version.Info.Classes {
		if c == name {
			return f.column(i, true)
		}
	}
	return nil, refuse("no output %q: this model has %s", clip(name), f.choices())
}

// column returns the output of class or column i. In a model of one margin and
// two classes, column counts classes where classes is true.
func (f *forest) column(i int, classes bool) ([]output, error) {
	k := f.ensemble.Outputs
	two := k == 1 && f.classCount() == 2
	if two && classes {
		o := output{name: f.className(i), margin: 0, sign: 1}
		if i == 0 {
			o.sign = -1
			if f.space() == "probability" {
				o.shift = 1
			}
		}
		if i <= 1 {
			return []output{o}, nil
		}
	}
	if i >= k {
		return nil, refuse("no output %d: this model has %s", i, f.choices())
	}
	return []output{{name: f.outputName(i), margin: i, sign: 1}}, nil
}

// classCount returns how many classes the output's columns or Classes tell.
func (f *forest) classCount() int {
	for _, s := range f.version.Info.Outputs {
		if s.Name == f.output && len(s.Shape) == 2 && s.Shape[1] > 0 {
			return s.Shape[1]
		}
	}
	return len(f.version.Info.Classes)
}

// isOwn reports whether name is one of the model's outputs that the margins
// feed.
func (f *forest) isOwn(name string) bool {
	return name == f.output || name == tree.MarginName || name == tree.OutputName
}

// outputName names margin i: the output itself where there is one, else a class
// that has a name, else the output's element.
func (f *forest) outputName(i int) string {
	if f.ensemble.Outputs == 1 {
		if f.classCount() == 2 && f.version.Info.Format == "onnx" {
			return f.className(1)
		}
		return f.output
	}
	return f.className(i)
}

func (f *forest) className(i int) string { return className(f.version.Info, f.output, i) }

// className returns class i's name, or out[i] where classes have none but
// numbers.
func className(info *engine.Info, out string, i int) string {
	if i < len(info.Classes) {
		if _, err := strconv.ParseFloat(info.Classes[i], 64); err != nil {
			return info.Classes[i]
		}
	}
	return fmt.Sprintf("%s[%d]", out, i)
}

func (f *forest) choices() string {
	names := make([]string, f.ensemble.Outputs)
	for i := range names {
		names[i] = f.outputName(i)
	}
	if len(names) > 12 {
		names = append(names[:11], "...")
	}
	return strings.Join(names, ", ")
}

// splitIndex takes name[k] apart.
func splitIndex(name string) (base string, index int, ok bool) {
	open := strings.LastIndexByte(name, '[')
	if open < 1 || !strings.HasSuffix(name, "]") {
		return "", 0, false
	}
	n, err := strconv.ParseUint(name[open+1:len(name)-1], 10, 31)
	if err != nil {
		return "", 0, false
	}
	return name[:open], int(n), true
}

// featureName returns the name of feature i.
func featureName(info *engine.Info, i int) string {
	if i < len(info.Features) && info.Features[i].Name != "" {
		return info.Features[i].Name
	}
	return "f" + strconv.Itoa(i)
}

// shown returns a feature's value as an answer shows it: nil where it is
// missing, a category by its name where the model knows it.
func shown(info *engine.Info, i int, v float64) any {
	if math.IsNaN(v) {
		return nil
	}
	if math.IsInf(v, 0) {
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	if i < len(info.Features) && info.Features[i].Categorical {
		if c := info.Features[i].Categories; v >= 0 && v < float64(len(c)) && v == math.Trunc(v) {
			return c[int(v)]
		}
	}
	return v
}
