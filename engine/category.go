package engine

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// TakesValues reports whether a number that is given for this feature by name or by place
// among values is a category itself, looked up by its value (shop 107 of shops 100 to 189), as
// 107, 107.0 and "107" alike. So it is where any category the file names is a number, or all
// are True and False, which are 1 and 0. Elsewhere a number is a code: no category can be meant.
// The numbers of the matrix are codes always.
func (f *Feature) TakesValues() bool {
	if x := indexOf(f); x != nil {
		return x.takesValues
	}
	return takesValues(f)
}

func takesValues(f *Feature) bool {
	bools := len(f.Categories) > 0
	for _, name := range f.Categories {
		if _, ok := parseNumber(name); ok {
			return true
		}
		_, ok := parseTruth(name)
		bools = bools && ok
	}
	return bools
}

// TellsTextsApart reports whether the way in which a number is written matters to this feature:
// where categories are called 1e3 and 1000, or 07.
func (f *Feature) TellsTextsApart() bool {
	return slices.ContainsFunc(f.Categories, func(name string) bool {
		v, ok := parseNumber(name)
		return ok && (name != strconv.FormatFloat(v, 'f', -1, 64) || v == 0 && math.Signbit(v))
	})
}

// Category is the code of the category that a number is, where numbers are values.
func (f *Feature) Category(v float64) (code int, ok bool) {
	var c categories
	c.look(&Info{}, f, 1)
	x := c.float(v)
	return int(x), x == x
}

// Value is the number that the category of a code is, where it is one.
func (f *Feature) Value(code int) (v float64, ok bool) {
	if code < 0 || code >= len(f.Categories) {
		return 0, false
	}
	return nameValue(f.Categories[code])
}

// parseNumber reads a category's name as a finite number.
func parseNumber(name string) (float64, bool) {
	if name == "" || name[0] > '9' {
		return 0, false // spares ParseFloat's error for what is a word
	}
	v, err := strconv.ParseFloat(name, 64)
	return v, err == nil && !math.IsInf(v, 0) && v == v
}

func parseTruth(name string) (float64, bool) {
	switch name {
	case "True", "true":
		return 1, true
	case "False", "false":
		return 0, true
	}
	return 0, false
}

// nameValue is the number that a category's name stands for.
func nameValue(name string) (float64, bool) {
	if v, ok := parseNumber(name); ok {
		return v, true
	}
	return parseTruth(name)
}

// fewNames are so many that looking for each among the categories costs less than
// a map of them.
const fewNames = 16

// categories finds the codes of one feature's categories.
type categories struct {
	info    *Info
	feature *Feature
	index   *categoryIndex      // of many categories; then the maps are its own
	names   map[string]float64  // nil for a few lookups among few
	values  map[float64]float64 // made when a number is no name as it is written
	own     map[string]float64  // names, where there is no index
}

// look turns to a feature for that many lookups. The map of one before is used again.
func (c *categories) look(info *Info, feature *Feature, count int) {
	c.info, c.feature, c.names, c.values = info, feature, nil, nil
	if c.index = indexOf(feature); c.index != nil {
		c.names = c.index.names
		return
	}
	if count <= fewNames {
		return
	}
	if c.own == nil {
		c.own = make(map[string]float64, len(feature.Categories))
	}
	clear(c.own)
	c.names = c.own
	for i, name := range feature.Categories {
		c.names[name] = float64(i)
	}
}

// name is the code of a category's name. LightGBM's reader makes a name it does not
// know a missing value; XGBoost compares codes with sets of known codes, so a
// code beyond them is in none.
func (c *categories) name(name string) float64 {
	if code, ok := c.named(name); ok {
		return code
	}
	return unknownCode(c.info, c.feature, len(name) == 0)
}

func (c *categories) named(name string) (float64, bool) {
	if c.names != nil {
		code, ok := c.names[name]
		return code, ok
	}
	for i := len(c.feature.Categories) - 1; i >= 0; i-- {
		if c.feature.Categories[i] == name {
			return float64(i), true
		}
	}
	return 0, false
}

// exactInteger bounds the whole numbers that a float64 holds each apart.
const exactInteger = 1 << 53

// integer is the code of the category that is called v, or else has its value.
func (c *categories) integer(v int64) float64 {
	var buf [20]byte
	if code, ok := c.named(string(strconv.AppendInt(buf[:0], v, 10))); ok {
		return code
	}
	if v > -exactInteger && v < exactInteger {
		if code, ok := c.valued(float64(v)); ok {
			return code
		}
	}
	return unknownCode(c.info, c.feature, false)
}

func (c *categories) unsigned(v uint64) float64 {
	if v <= math.MaxInt64 {
		return c.integer(int64(v))
	}
	return c.name(strconv.FormatUint(v, 10))
}

// float is integer of a number that need not be whole. NaN is missing.
func (c *categories) float(v float64) float64 {
	switch {
	case v != v:
		return v
	case v == math.Trunc(v) && math.Abs(v) < exactInteger:
		return c.integer(int64(v))
	}
	if code, ok := c.valued(v); ok {
		return code
	}
	return unknownCode(c.info, c.feature, false)
}

// single is float of a float32, which is the number it is written as: 0.1 is not what
// FP64 makes of FP32's 0.1.
func (c *categories) single(v float32) float64 {
	x := float64(v)
	if x != math.Trunc(x) {
		x, _ = strconv.ParseFloat(strconv.FormatFloat(x, 'g', -1, 32), 64)
	}
	return c.float(x)
}

// valued finds the one category whose name stands for v. Where several do ("01" and
// "1.0"), none can be meant.
func (c *categories) valued(v float64) (code float64, ok bool) {
	if c.names == nil {
		for i, name := range c.feature.Categories {
			if x, is := nameValue(name); is && x == v {
				if ok {
					return 0, false
				}
				code, ok = float64(i), true
			}
		}
		return code, ok
	}
	switch {
	case c.index != nil:
		c.values = c.index.byValue(c.feature.Categories)
	case c.values == nil:
		c.values = valuesOf(c.feature.Categories)
	}
	code, ok = c.values[v]
	return code, ok && code >= 0
}

// valuesOf are the categories' codes by the numbers that their names are, -1 where several are.
func valuesOf(names []string) map[float64]float64 {
	values := make(map[float64]float64, len(names))
	for i, name := range names {
		x, is := nameValue(name)
		if _, dup := values[x]; is && dup {
			values[x] = -1
		} else if is {
			values[x] = float64(i)
		}
	}
	return values
}

// unknownCode is the code of what is no category.
func unknownCode(info *Info, feature *Feature, empty bool) float64 {
	if !empty && info.Format == "xgboost" {
		return float64(len(feature.Categories))
	}
	return math.NaN()
}

// noCategories says why a feature takes no text.
func noCategories(feature *Feature) string {
	switch {
	case len(feature.Categories) > 0:
		return ""
	case feature.Categorical:
		return "text is not accepted: the model file does not name this feature's categories, or not so that they can be told apart (pellucid model inspect says which); send their codes"
	}
	return "text is not accepted: the feature is numeric"
}

// fillNames puts the codes of names of categories into the place of a feature.
func fillNames[F float32 | float64](dst []F, names []string, info *Info, f int) string {
	if reason := noCategories(&info.Features[f]); reason != "" {
		return reason
	}
	var c categories
	c.look(info, &info.Features[f], len(names))
	width := len(info.Features)
	for r, name := range names {
		dst[r*width+f] = F(c.name(name))
	}
	return ""
}

// fillValues puts the codes of categories given by value into the place of a feature.
func fillValues[F float32 | float64](dst []F, info *Info, f int, t *Tensor) string {
	var c categories
	c.look(info, &info.Features[f], t.Len())
	width := len(info.Features)
	var code func(r int) float64
	switch d := t.data.(type) {
	case *[]float32:
		code = func(r int) float64 { return c.single((*d)[r]) }
	case *[]int64:
		code = func(r int) float64 { return c.integer((*d)[r]) }
	case *[]uint64:
		code = func(r int) float64 { return c.unsigned((*d)[r]) }
	default:
		wide, ok := t.Float64s()
		if !ok {
			return fmt.Sprintf("type %s is no category", t.dtype)
		}
		code = func(r int) float64 { return c.float(wide[r]) }
	}
	for r := range t.Len() {
		dst[r*width+f] = F(code(r))
	}
	return ""
}
