package xgboost

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// objective is what prediction needs to know of a training objective.
type objective struct {
	name string
	task engine.Task
	link tree.Link
	// margin is the inverse link that base_score was stored behind.
	margin inverse
	// bounded says that the version bounds probabilities before it takes the logit.
	bounded bool
}

// inverse turns a stored base_score into a margin.
type inverse uint8

const (
	inverseIdentity inverse = iota
	inverseLogit
	inverseLog
)

var objectives = map[string]objective{
	"reg:squarederror":     {task: engine.TaskRegression, link: tree.LinkIdentity},
	"reg:linear":           {task: engine.TaskRegression, link: tree.LinkIdentity},
	"reg:squaredlogerror":  {task: engine.TaskRegression, link: tree.LinkIdentity},
	"reg:pseudohubererror": {task: engine.TaskRegression, link: tree.LinkIdentity},
	"reg:absoluteerror":    {task: engine.TaskRegression, link: tree.LinkIdentity},
	"reg:quantileerror":    {task: engine.TaskRegression, link: tree.LinkIdentity},
	"reg:expectileerror":   {task: engine.TaskRegression, link: tree.LinkIdentity},
	"reg:logistic":         {task: engine.TaskRegression, link: tree.LinkSigmoid, margin: inverseLogit},
	"reg:gamma":            {task: engine.TaskRegression, link: tree.LinkExp, margin: inverseLog},
	"reg:tweedie":          {task: engine.TaskRegression, link: tree.LinkExp, margin: inverseLog},
	"count:poisson":        {task: engine.TaskRegression, link: tree.LinkExp, margin: inverseLog},
	"survival:cox":         {task: engine.TaskOther, link: tree.LinkExp, margin: inverseLog},
	"survival:aft":         {task: engine.TaskOther, link: tree.LinkExp, margin: inverseLog},
	"binary:logistic":      {task: engine.TaskBinary, link: tree.LinkSigmoid, margin: inverseLogit},
	"binary:logitraw":      {task: engine.TaskOther, link: tree.LinkIdentity},
	"binary:hinge":         {task: engine.TaskBinary, link: tree.LinkStep},
	"multi:softprob":       {task: engine.TaskMulticlass, link: tree.LinkSoftmax},
	"multi:softmax":        {task: engine.TaskMulticlass, link: tree.LinkArgmax},
	"rank:ndcg":            {task: engine.TaskRanking, link: tree.LinkIdentity},
	"rank:map":             {task: engine.TaskRanking, link: tree.LinkIdentity},
	"rank:pairwise":        {task: engine.TaskRanking, link: tree.LinkIdentity},
}

// sortedSince is the version whose quantiles are sorted on prediction.
const sortedSince = 304

// boundedSince is the version that keeps a probability probabilityFloor away from 0
// and 1 before it takes its logit.
const (
	boundedSince     = 302
	probabilityFloor = float32(1e-6)
)

func readObjective(top object, outputs, version int) (objective, error) {
	param, err := top.object("objective")
	if err != nil {
		return objective{}, err
	}
	name, err := param.text("name")
	if err != nil {
		return objective{}, err
	}
	o, ok := objectives[name]
	if !ok {
		return objective{}, &engine.UnsupportedError{What: "objective " + strconv.Quote(short(name))}
	}
	o.name, o.bounded = name, version >= boundedSince
	if outputs > 1 && o.link == tree.LinkSigmoid {
		o.link = tree.LinkSigmoidEach
	}
	if outputs > 1 && name == "reg:quantileerror" && version >= sortedSince {
		o.link = tree.LinkSorted
	}
	if outputs > 1 && name == "reg:expectileerror" {
		o.link = tree.LinkSoftplusSum
	}
	if outputs > 1 && o.task == engine.TaskBinary {
		o.task = engine.TaskOther // several labels a row
	}
	return o, nil
}

// readBase returns the margins that base_score stands for. The file keeps it as
// text: one number, or since 3.1 a list, "[5E-1]" or one a target; one number
// stands for every output. raw says that the numbers are margins already.
func readBase(param object, o objective, outputs int, raw bool) ([]float32, error) {
	text, err := param.text("base_score")
	if err != nil {
		return nil, err
	}
	inner := strings.TrimSpace(text)
	if strings.HasPrefix(inner, "[") && strings.HasSuffix(inner, "]") {
		inner = inner[1 : len(inner)-1]
	}
	parts := strings.SplitN(inner, ",", outputs+1)
	if len(parts) != 1 && len(parts) != outputs {
		return nil, corruptf("base_score has not one number for each of %d outputs", outputs)
	}
	if raw {
		o.margin = inverseIdentity
	}
	base := make([]float32, outputs)
	for i := range base {
		if i >= len(parts) {
			base[i] = base[0]
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(parts[i]), 32)
		if err != nil {
			return nil, corruptf("base_score %s is not a number", strconv.Quote(short(text)))
		}
		if base[i], err = o.margin.apply(float32(v), o.bounded); err != nil {
			return nil, fmt.Errorf("base_score %v: %w", v, err)
		}
	}
	if o.link == tree.LinkSoftplusSum && !raw {
		softplusSteps(base)
	}
	return base, nil
}

// softplusSteps turns predictions into the margins that tree.LinkSoftplusSum
// makes them of.
func softplusSteps(base []float32) {
	for i := len(base) - 1; i > 0; i-- {
		step := max(float64(base[i]-base[i-1])-tree.StepFloor, tree.StepFloor)
		base[i] = float32(step + math.Log(-math.Expm1(-step)))
	}
}

// apply turns a prediction into its margin. All labels alike make a base_score of 0
// or 1: versions before boundedSince save such a model and then cannot load it, later
// ones bound what those saved too.
func (m inverse) apply(v float32, bounded bool) (float32, error) {
	switch m {
	case inverseLogit:
		if !(v >= 0 && v <= 1) {
			return 0, corruptf("it is not between 0 and 1")
		}
		if bounded || v == 0 || v == 1 {
			v = min(max(v, probabilityFloor), 1-probabilityFloor)
		}
		odds := 1/v - 1
		return float32(-math.Log(float64(odds))), nil
	case inverseLog:
		if !(v > 0) {
			return 0, corruptf("it is not above 0")
		}
		return float32(math.Log(float64(v))), nil
	}
	if math.IsNaN(float64(v)) {
		return 0, corruptf("it is NaN")
	}
	return v, nil
}
