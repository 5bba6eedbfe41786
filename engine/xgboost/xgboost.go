// Package xgboost reads the models that XGBoost saves, as JSON and as Universal
// Binary JSON, from version 1.0 on: gbtree, dart and gblinear boosters.
//
// It owns the two decoders and the translation into engine/tree (or, for
// gblinear, a linear model of its own), with XGBoost's conventions: float32
// inputs, thresholds and sums, x < threshold goes left, NaN is missing, hessian
// covers, base_score stored behind the objective's inverse link. It never
// trains, never explains, and never cuts a model at best_iteration: it predicts
// what Booster.predict does.
//
// Invariants: a file is data from a stranger; memory is bounded by a small
// multiple of its length, and damage is an error that wraps engine.ErrCorrupt.
// What the engine does not have is refused by name (*engine.UnsupportedError).
package xgboost

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// Format is what Info.Format says of these models.
const Format = "xgboost"

// Read returns the model in data, which is JSON or UBJSON; the two are told
// apart by their second byte, as XGBoost does.
func Read(data []byte) (engine.Model, error) {
	head := bytes.TrimLeft(data, " \t\r\n")
	if len(head) == 0 || head[0] != '{' {
		return nil, fmt.Errorf("%w: neither XGBoost JSON nor UBJSON", engine.ErrCorrupt)
	}
	second := bytes.TrimLeft(head[1:], " \t\r\n")
	if len(second) > 0 && (second[0] == '"' || second[0] == '}') {
		return ReadJSON(data)
	}
	return ReadUBJ(data)
}

// ReadJSON returns the model in a JSON file.
func ReadJSON(data []byte) (engine.Model, error) {
	doc, err := decodeJSON(data)
	if err != nil {
		return nil, fmt.Errorf("decode JSON: %w", err)
	}
	return build(doc)
}

// ReadUBJ returns the model in a UBJSON file.
func ReadUBJ(data []byte) (engine.Model, error) {
	doc, err := decodeUBJ(data)
	if err != nil {
		return nil, fmt.Errorf("decode UBJSON: %w", err)
	}
	return build(doc)
}

// learner is what a file says besides its booster.
type learner struct {
	features, outputs int
	version           int       // major times 100 plus minor; 0 where the file does not say
	base              []float32 // margins, one an output
	objective         objective
	info              *engine.Info
}

func build(doc any) (engine.Model, error) {
	root, ok := doc.(object)
	if !ok {
		return nil, corruptf("the document is not an object")
	}
	top, err := root.object("learner")
	if err != nil {
		return nil, err
	}
	l, err := readLearner(root, top)
	if err != nil {
		return nil, err
	}
	booster, err := top.object("gradient_booster")
	if err != nil {
		return nil, err
	}
	name, err := booster.text("name")
	if err != nil {
		return nil, err
	}
	l.detail("booster", name)
	switch name {
	case "gbtree":
		return l.trees(booster, nil)
	case "dart":
		return l.dart(booster)
	case "gblinear":
		return l.linear(booster)
	}
	return nil, &engine.UnsupportedError{What: "booster " + strconv.Quote(short(name))}
}

func (l *learner) detail(name, value string) {
	l.info.Details = append(l.info.Details, engine.Detail{Name: name, Value: value})
}

func readLearner(root, top object) (*learner, error) {
	l := &learner{info: &engine.Info{Format: Format, Missing: true}}
	param, err := top.object("learner_model_param")
	if err != nil {
		return nil, err
	}
	if l.features, err = param.count("num_feature", tree.MaxFeatures); err != nil {
		return nil, err
	}
	classes, err := param.count("num_class", tree.MaxOutputs)
	if err != nil {
		return nil, err
	}
	targets := 1
	if _, ok := param["num_target"]; ok { // since 1.6
		if targets, err = param.count("num_target", tree.MaxOutputs); err != nil {
			return nil, err
		}
	}
	l.outputs = max(classes, targets, 1)
	name := ""
	l.version, name = version(root)
	if l.objective, err = readObjective(top, l.outputs, l.version); err != nil {
		return nil, err
	}
	if l.objective.name == "binary:logitraw" && logitOfRaw(l.version, name) {
		l.objective.margin = inverseLogit
	}
	raw := l.version >= 301 && untrained(top, param)
	if l.base, err = readBase(param, l.objective, l.outputs, raw); err != nil {
		return nil, err
	}
	if l.info.Features, err = readFeatures(top, l.features); err != nil {
		return nil, err
	}
	l.info.Task = l.objective.task
	l.detail("producer", "XGBoost "+name)
	l.detail("objective", l.objective.name)
	l.bestIteration(top)
	return l, nil
}

// logitOfRaw reports whether the version added the logit of base_score to what
// binary:logitraw answers, as 1.0.0 to 1.3.0 do. Later ones add base_score itself, also to what is in a
// file of those, whose own numbers are kept here.
func logitOfRaw(version int, name string) bool {
	return version >= 100 && version < 103 || name == "1.3.0"
}

// untrained reports whether a model has no trees and a base_score that nobody
// chose: the first boosting round would have estimated it, and until then
// XGBoost takes it for a margin since 3.1.
func untrained(top, param object) bool {
	if chosen, err := param.text("boost_from_average"); err != nil || chosen != "1" {
		return false
	}
	booster, err := top.object("gradient_booster")
	if err != nil {
		return false
	}
	if inner, err := booster.object("gbtree"); err == nil {
		booster = inner
	}
	model, err := booster.object("model")
	if err != nil {
		return false
	}
	trees, err := model.list("trees")
	return err == nil && len(trees) == 0
}

// bestIteration tells what early stopping found. Booster.predict uses all
// trees all the same, and so does this reader.
func (l *learner) bestIteration(top object) {
	attributes, err := top.object("attributes")
	if err != nil {
		return
	}
	if best, err := attributes.text("best_iteration"); err == nil {
		l.detail("best_iteration", short(best)+" (all trees are used, as Booster.predict does; XGBClassifier and XGBRegressor stop there)")
	}
}

func version(root object) (number int, name string) {
	v, err := root.numbers("version")
	if err != nil || v.Len() != 3 || v.At(0) < 0 || v.At(0) > 1000 || v.At(1) < 0 || v.At(1) > 99 {
		return 0, "of an unknown version"
	}
	return int(v.At(0))*100 + int(v.At(1)), fmt.Sprintf("%.0f.%.0f.%.0f", v.At(0), v.At(1), v.At(2))
}

// readFeatures returns names and kinds: the file's own, else f0, f1 and so on.
func readFeatures(top object, n int) ([]engine.Feature, error) {
	names, err := top.optionalTexts("feature_names")
	if err != nil {
		return nil, err
	}
	types, err := top.optionalTexts("feature_types")
	if err != nil {
		return nil, err
	}
	for _, list := range [][]string{names, types} {
		if len(list) != 0 && len(list) != n {
			return nil, corruptf("%d feature names or types for %d features", len(list), n)
		}
	}
	features := make([]engine.Feature, n)
	for i := range features {
		features[i].Name = "f" + strconv.Itoa(i)
		if len(names) > 0 {
			features[i].Name = names[i]
		}
		features[i].Categorical = len(types) > 0 && types[i] == "c"
	}
	return features, nil
}
