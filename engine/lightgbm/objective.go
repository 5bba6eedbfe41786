package lightgbm

import (
	"slices"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// objective is what prediction needs to know of a training objective.
type objective struct {
	name  string
	task  engine.Task
	link  tree.Link
	scale float64
}

var objectives = map[string]objective{
	"regression":           {task: engine.TaskRegression, link: tree.LinkIdentity},
	"regression_l2":        {task: engine.TaskRegression, link: tree.LinkIdentity},
	"regression_l1":        {task: engine.TaskRegression, link: tree.LinkIdentity},
	"huber":                {task: engine.TaskRegression, link: tree.LinkIdentity},
	"fair":                 {task: engine.TaskRegression, link: tree.LinkIdentity},
	"quantile":             {task: engine.TaskRegression, link: tree.LinkIdentity},
	"mape":                 {task: engine.TaskRegression, link: tree.LinkIdentity},
	"poisson":              {task: engine.TaskRegression, link: tree.LinkExp},
	"gamma":                {task: engine.TaskRegression, link: tree.LinkExp},
	"tweedie":              {task: engine.TaskRegression, link: tree.LinkExp},
	"binary":               {task: engine.TaskBinary, link: tree.LinkSigmoid},
	"cross_entropy":        {task: engine.TaskRegression, link: tree.LinkSigmoid},
	"cross_entropy_lambda": {task: engine.TaskRegression, link: tree.LinkLog1pExp},
	"multiclass":           {task: engine.TaskMulticlass, link: tree.LinkSoftmax},
	"multiclassova":        {task: engine.TaskMulticlass, link: tree.LinkSigmoidEach},
	"lambdarank":           {task: engine.TaskRanking, link: tree.LinkIdentity},
	"rank_xendcg":          {task: engine.TaskRanking, link: tree.LinkIdentity},
}

// readObjective parses the objective's line: a name, then "key:value" or flags.
// A model trained with the caller's own objective has no such line, and its
// margins are its predictions.
func readObjective(line string) (objective, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return objective{name: "custom", task: engine.TaskOther, link: tree.LinkIdentity}, nil
	}
	o, ok := objectives[words[0]]
	if !ok {
		return objective{}, &engine.UnsupportedError{What: "objective " + strconv.Quote(short(words[0]))}
	}
	o.name = line
	if o.link == tree.LinkIdentity && slices.Contains(words[1:], "sqrt") {
		o.link = tree.LinkSquare
	}
	for _, w := range words[1:] {
		v, ok := strings.CutPrefix(w, "sigmoid:")
		if !ok {
			continue
		}
		scale, err := strconv.ParseFloat(v, 64)
		if err != nil || !(scale > 0) {
			return objective{}, corruptf("objective: the sigmoid's slope is not a positive number")
		}
		o.scale = scale
	}
	return o, nil
}
