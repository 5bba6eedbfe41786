package xgboost

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// categories reads the names of categories, which files have since 3.1 where
// the training data named them: for each feature either text, as offsets into
// bytes, or numbers.
func (l *learner) categories(model object) error {
	if _, ok := model["cats"]; !ok {
		return nil
	}
	cats, err := model.object("cats")
	if err != nil {
		return err
	}
	if _, ok := cats["enc"]; !ok {
		return nil
	}
	encoded, err := cats.list("enc")
	if err != nil {
		return err
	}
	if len(encoded) != 0 && len(encoded) != l.features {
		return corruptf("categories of %d features for %d", len(encoded), l.features)
	}
	for i := range encoded {
		o, ok := encoded[i].(object)
		if !ok {
			return corruptf("categories of feature %d are not an object", i)
		}
		names, err := categoryNames(o)
		if err != nil {
			return err
		}
		if l.version < 304 && slices.ContainsFunc(names, notASCII) {
			l.info.Features[i].Categorical = true
			l.detail("categories", "the names of feature "+strconv.Quote(short(l.info.Features[i].Name))+
				" are unknown: XGBoost before 3.4 cuts names beyond ASCII in the wrong places")
			continue
		}
		if len(names) > 0 {
			l.info.Features[i].Categorical = true
			l.info.Features[i].Categories = names
		}
	}
	return nil
}

func categoryNames(o object) ([]string, error) {
	values, err := o.numbers("values")
	if err != nil {
		return nil, err
	}
	if _, text := o["offsets"]; !text {
		names := make([]string, values.Len())
		for i := range names {
			names[i] = strconv.FormatFloat(values.At(i), 'f', -1, 64)
		}
		return names, nil
	}
	offsets, err := o.numbers("offsets")
	if err != nil {
		return nil, err
	}
	buf := make([]byte, values.Len())
	for i := range buf {
		buf[i] = byte(int(values.At(i))) // signed bytes of UTF-8
	}
	var names []string
	for i := 1; i < offsets.Len(); i++ {
		from, ok1 := offsets.Int(i - 1)
		to, ok2 := offsets.Int(i)
		if !ok1 || !ok2 || from < 0 || to < from || int(to) > len(buf) {
			return nil, corruptf("the offsets of category names are out of range")
		}
		names = append(names, string(buf[from:to]))
	}
	return names, nil
}

func notASCII(name string) bool {
	return strings.ContainsFunc(name, func(r rune) bool { return r >= utf8.RuneSelf })
}
