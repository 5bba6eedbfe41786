package dashboards

import (
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"time"

	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/dashboards/plots"
)

// chart is one figure: series over time, drawn by the page's script and listed
// in the table below it.
type chart struct {
	Title, Unit string
	Times       []time.Time
	Series      []series
	// Zero makes the axis start at zero.
	Zero bool
}

type series struct {
	Name   string     `json:"name"`
	Values []*float64 `json:"values"`
}

// JSON is what the script reads.
func (c chart) JSON() (string, error) {
	at := make([]int64, len(c.Times))
	for i, t := range c.Times {
		at[i] = t.Unix()
	}
	b, err := json.Marshal(map[string]any{"times": at, "series": c.Series, "zero": c.Zero})
	if err != nil {
		return "", fmt.Errorf("draw %s: %w", c.Title, err)
	}
	return string(b), nil
}

// known returns v, or nil where there is no number to draw.
func known(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// orNaN is the other way round: NaN where there is no number.
func orNaN(v *float64) float64 {
	if v == nil {
		return math.NaN()
	}
	return *v
}

func trafficCharts(points []api.TrafficPoint) []chart {
	var times []time.Time
	rows, errs := series{Name: "rows"}, series{Name: "errors"}
	p50, p99 := series{Name: "p50"}, series{Name: "p99"}
	for _, p := range points {
		times = append(times, p.Start)
		rows.Values = append(rows.Values, known(p.Rows))
		errs.Values = append(errs.Values, known(p.Errors))
		p50.Values = append(p50.Values, known(orNaN(p.P50MS)))
		p99.Values = append(p99.Values, known(orNaN(p.P99MS)))
	}
	return []chart{
		{Title: "Rows", Unit: "per step", Times: times, Series: []series{rows}, Zero: true},
		{Title: "Latency", Unit: "ms", Times: times, Series: []series{p50, p99}, Zero: true},
		{Title: "Errors", Unit: "per step", Times: times, Series: []series{errs}, Zero: true},
	}
}

// performanceChart draws the metrics that live on a scale of their own kind
// together: parts of one, or errors in the label's unit.
func performanceChart(p api.Performance) *chart {
	if len(p.Chunks) == 0 {
		return nil
	}
	names := []string{"auc", "accuracy", "macro_f1"}
	if p.Task == "regression" {
		names = []string{"mae", "rmse"}
	}
	c := &chart{Title: "Performance where labels have come"}
	for _, chunk := range p.Chunks {
		c.Times = append(c.Times, chunk.Start)
	}
	for _, name := range names {
		s, any := series{Name: name}, false
		for _, chunk := range p.Chunks {
			v, ok := chunk.Metrics[name]
			if !ok {
				v = math.NaN()
			}
			s.Values = append(s.Values, known(v))
			any = any || ok
		}
		if any {
			c.Series = append(c.Series, s)
		}
	}
	if len(c.Series) == 0 {
		return nil
	}
	return c
}

// figureView is a figure twice: scaled down, one drawn for a desk cannot be read
// on a phone. The style sheet shows the one that fits.
type figureView struct{ Wide, Narrow template.HTML }

func draw(width int, one func(plots.Options) ([]byte, error)) (figureView, error) {
	wide, err := one(plots.Options{Theme: plots.Page, Width: width})
	if err != nil {
		return figureView{}, err
	}
	narrow, err := one(plots.Options{Theme: plots.Page, Width: 320})
	if err != nil {
		return figureView{}, err
	}
	return figureView{template.HTML(wide), template.HTML(narrow)}, nil //nolint:gosec // drawn by us; labels are escaped by the plot
}
