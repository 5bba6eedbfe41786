package audit

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Limits are what a change may cost. A nil one asks for nothing; what was not judged
// fails the limit that asks for it.
type Limits struct {
	// ScoreDiff bounds the largest difference of any output element,
	// MeanScoreDiff the mean.
	ScoreDiff, MeanScoreDiff *float64
	// Disagreement bounds the share of rows decided otherwise.
	Disagreement *float64
	// PSI bounds the population stability index of the scores.
	PSI *float64
	// RankCorrelation is the least mean Spearman correlation of explanations.
	RankCorrelation *float64
	// AccuracyLoss bounds the accuracy lost, or the share by which a regression's
	// RMSE grew.
	AccuracyLoss *float64
	// SizeRatio bounds the file's size as a share of the original's.
	SizeRatio *float64
	// Speedup is the least ratio of rows a second, in batches.
	Speedup *float64
}

// Check is one limit with what was found.
type Check struct {
	Name  string  `json:"name"`
	Limit float64 `json:"limit"`
	// Value is what was found; nil where it could not be judged, for the Reason.
	Value  *float64 `json:"value"`
	Passed bool     `json:"passed"`
	Reason string   `json:"reason,omitempty"`
}

// Verdict holds a report against limits.
type Verdict struct {
	Passed bool    `json:"passed"`
	Checks []Check `json:"checks"`
}

// Judge fills in the report's verdict.
func (r *Report) Judge(l Limits) *Verdict {
	v := &Verdict{Passed: true}
	at := func(name string, limit *float64, value float64, reason string, least bool) {
		if limit == nil {
			return
		}
		c := Check{Name: name, Limit: *limit, Reason: reason}
		if reason == "" && !math.IsNaN(value) {
			if !math.IsInf(value, 0) {
				c.Value = &value
			} else {
				c.Reason = "an output is a number on one side only"
			}
			c.Passed = value <= *limit
			if least {
				c.Passed = value >= *limit
			}
		}
		v.Passed = v.Passed && c.Passed
		v.Checks = append(v.Checks, c)
	}
	at("max-score-diff", l.ScoreDiff, float64(r.Scores.MaxDifference), "", false)
	mean := ""
	if r.Scores.NotFinite > 0 {
		mean = "an output is a number on one side only"
	}
	at("max-mean-score-diff", l.MeanScoreDiff, r.Scores.MeanDifference, mean, false)
	disagreement, reason := 0.0, "the model decides nothing"
	if r.Decisions != nil {
		disagreement, reason = r.Decisions.Disagreement, ""
	}
	at("max-disagreement", l.Disagreement, disagreement, reason, false)
	at("max-psi", l.PSI, r.Distribution.PSI, r.Distribution.Reason, false)
	rho, reason := 0.0, "no row was explained"
	if e := r.Explanations; e != nil {
		rho, reason = e.Spearman, e.Reason
	}
	at("min-rank-correlation", l.RankCorrelation, rho, reason, true)
	loss, reason := 0.0, "there are no labels"
	if a := r.Accuracy; a != nil {
		loss, reason = a.Loss, a.Reason
	}
	at("max-accuracy-loss", l.AccuracyLoss, loss, reason, false)
	at("max-size-ratio", l.SizeRatio, r.File.Ratio, "", false)
	ratio, reason := 0.0, "speed was not measured"
	if r.Speed != nil {
		ratio, reason = r.Speed.InBulk.Ratio, ""
	}
	at("min-speedup", l.Speedup, ratio, reason, true)
	if len(v.Checks) == 0 {
		return nil
	}
	r.Verdict = v
	return v
}

// Failures tells in words which limits were not kept.
func (v *Verdict) Failures() string {
	var out []string
	for _, c := range v.Checks {
		switch {
		case c.Passed:
		case c.Value == nil:
			out = append(out, fmt.Sprintf("%s could not be judged: %s", c.Name, c.Reason))
		default:
			out = append(out, fmt.Sprintf("%s is %s, the limit is %s", c.Name, short(*c.Value), short(c.Limit)))
		}
	}
	return strings.Join(out, "; ")
}

func short(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }
