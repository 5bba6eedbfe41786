package catboost

import (
	"math"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// loss is what prediction needs to know of a training loss.
type loss struct {
	name string
	task engine.Task
	link tree.Link
	// outputs is how many the loss has; 0 is as many as there are classes or
	// targets. classes says that they are classes, whose names the file holds.
	outputs int
	classes bool
}

var losses = map[string]loss{
	"RMSE":                         {task: engine.TaskRegression, outputs: 1},
	"MAE":                          {task: engine.TaskRegression, outputs: 1},
	"Quantile":                     {task: engine.TaskRegression, outputs: 1},
	"GroupQuantile":                {task: engine.TaskRegression, outputs: 1},
	"LogLinQuantile":               {task: engine.TaskRegression, outputs: 1},
	"MAPE":                         {task: engine.TaskRegression, outputs: 1},
	"Lq":                           {task: engine.TaskRegression, outputs: 1},
	"Huber":                        {task: engine.TaskRegression, outputs: 1},
	"Expectile":                    {task: engine.TaskRegression, outputs: 1},
	"LogCosh":                      {task: engine.TaskRegression, outputs: 1},
	"RMSPE":                        {task: engine.TaskRegression, outputs: 1},
	"SurvivalAft":                  {task: engine.TaskRegression, outputs: 1},
	"Cox":                          {task: engine.TaskRegression, outputs: 1},
	"Poisson":                      {task: engine.TaskRegression, outputs: 1, link: tree.LinkExp},
	"Tweedie":                      {task: engine.TaskRegression, outputs: 1, link: tree.LinkExp},
	"RMSEWithUncertainty":          {task: engine.TaskRegression, outputs: 2, link: tree.LinkMeanVariance},
	"MultiQuantile":                {task: engine.TaskRegression},
	"MultiRMSE":                    {task: engine.TaskRegression},
	"MultiRMSEWithMissingValues":   {task: engine.TaskRegression},
	"Logloss":                      {task: engine.TaskBinary, outputs: 1, link: tree.LinkSigmoid, classes: true},
	"Focal":                        {task: engine.TaskBinary, outputs: 1, link: tree.LinkSigmoid, classes: true},
	"CrossEntropy":                 {task: engine.TaskRegression, outputs: 1, link: tree.LinkSigmoid},
	"MultiClass":                   {task: engine.TaskMulticlass, link: tree.LinkSoftmax, classes: true},
	"MultiClassOneVsAll":           {task: engine.TaskMulticlass, link: tree.LinkSigmoidEach, classes: true},
	"MultiLogloss":                 {task: engine.TaskOther, link: tree.LinkSigmoidEach},
	"MultiCrossEntropy":            {task: engine.TaskOther, link: tree.LinkSigmoidEach},
	"YetiRank":                     {task: engine.TaskRanking, outputs: 1},
	"YetiRankPairwise":             {task: engine.TaskRanking, outputs: 1},
	"PairLogit":                    {task: engine.TaskRanking, outputs: 1},
	"PairLogitPairwise":            {task: engine.TaskRanking, outputs: 1},
	"QueryRMSE":                    {task: engine.TaskRanking, outputs: 1},
	"QuerySoftMax":                 {task: engine.TaskRanking, outputs: 1},
	"QueryCrossEntropy":            {task: engine.TaskRanking, outputs: 1},
	"LambdaMart":                   {task: engine.TaskRanking, outputs: 1},
	"StochasticFilter":             {task: engine.TaskRanking, outputs: 1},
	"StochasticRank":               {task: engine.TaskRanking, outputs: 1},
	"PythonUserDefinedPerObject":   {task: engine.TaskOther},
	"PythonUserDefinedMultiTarget": {task: engine.TaskOther},
	"UserPerObjMetric":             {task: engine.TaskOther},
	"UserQuerywiseMetric":          {task: engine.TaskOther},
}

// readLoss finds the loss. A sum of models has none in its file, and its margins
// are its predictions.
func (r *reader) readLoss(e *tree.Ensemble) (loss, error) {
	p := r.doc.Info.Params
	if p == nil || p.Loss.Type == "" {
		return loss{name: "unknown (margins are the predictions)", task: engine.TaskOther, link: tree.LinkIdentity}, nil
	}
	// Older files have the parameters behind the name: "Quantile:alpha=0.3".
	name, _, _ := strings.Cut(p.Loss.Type, ":")
	l, ok := losses[name]
	if !ok {
		return l, &engine.UnsupportedError{What: "loss function " + strconv.Quote(short(name))}
	}
	if l.outputs > 0 && l.outputs != e.Outputs {
		return l, corruptf("loss function %s with %d outputs", name, e.Outputs)
	}
	if l.link == "" {
		l.link = tree.LinkIdentity
	}
	l.name = name
	return l, nil
}

// spread makes room for the classes that training had no row of.
func spread(e *tree.Ensemble, p *classParams) error {
	k, wide := e.Outputs, p.Count
	if wide > tree.MaxOutputs {
		return corruptf("%d classes, more than %d", wide, tree.MaxOutputs)
	}
	to := make([]int, k)
	for i, label := range p.Labels {
		v, err := strconv.ParseFloat(string(label), 64)
		if err != nil || v < 0 || v >= float64(wide) || v != math.Trunc(v) || i > 0 && int(v) <= to[i-1] {
			return corruptf("class_to_label is not a list of classes in order")
		}
		to[i] = int(v)
	}
	total := 0
	for i := range e.Trees {
		total += len(e.Trees[i].Nodes)
	}
	// A number of classes is short to write.
	if total > maxSpread/wide {
		return corruptf("%d classes, of which training had %d", wide, k)
	}
	base := make([]float64, wide)
	for i := range base {
		base[i] = math.Inf(-1)
	}
	for i, c := range to {
		base[c] = e.Base[i]
	}
	for i := range e.Trees {
		t := &e.Trees[i]
		values := make([]float64, len(t.Nodes)*wide)
		for j := range t.Nodes {
			for c, at := range to {
				values[j*wide+at] = t.Values[j*k+c]
			}
		}
		t.Values = values
	}
	e.Base, e.Outputs = base, wide
	return nil
}

// maxSpread bounds the leaf values of a model that spread makes.
const maxSpread = 1 << 24
