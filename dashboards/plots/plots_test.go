package plots_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/dashboards/plots"
)

// flight is an explanation as tree_shap gives them, of n features.
func flight(n int) *collector.Explanation {
	names := []string{"dep_delay", "distance", "carrier", "wind_speed", "visibility", "hour", "origin", "precip", "temperature_at_departure_in_degrees", "month", "a<b&\"c\"", "pressure", "dewpoint", "gust"}
	phi := []float64{1.31, -0.62, 0.4, 0.21, -0.18, 0.12, -0.06, 0.03, 0.02, -0.011, 0.004, 0.003, 0.001, -0.0004}
	shown := []any{42.0, 2475.0, "UA", 13.80936, nil, 17.0, "EWR", 0.0, 71.06, 3.0, 1.0, 1013.25, 44.1, nil}
	e := &collector.Explanation{Model: "flights", Version: "3", Method: "tree_shap", Output: "prediction", Space: "margin", Base: -0.84}
	e.Prediction = e.Base
	for i := range n {
		e.Attributions = append(e.Attributions, collector.Attribution{Feature: names[i], Value: shown[i], Phi: phi[i]})
		e.Prediction += phi[i]
	}
	return e
}

func draws(t *testing.T) map[string]func(plots.Options) ([]byte, error) {
	t.Helper()
	bins := []plots.Share{{"≤ 10", 0.31, 0.12}, {"10 – 20", 0.4, 0.38}, {"20 – 30", 0.2, 0.3}, {"> 30", 0.0891, 0.2}, {"missing", 0.0001, 0}}
	three := flight(3)
	three.Certificate.Baseline = "zeros"
	return map[string]func(plots.Options) ([]byte, error){
		"waterfall":       func(o plots.Options) ([]byte, error) { return plots.Waterfall(flight(14), o) },
		"waterfall_three": func(o plots.Options) ([]byte, error) { return plots.Waterfall(three, o) },
		"bar":             func(o plots.Options) ([]byte, error) { return plots.Bar(flight(14), o) },
		"global": func(o plots.Options) ([]byte, error) {
			return plots.Global([]collector.Explanation{*flight(14), *flight(14)}, o)
		},
		"drift": func(o plots.Options) ([]byte, error) { return plots.ReferenceVsCurrent("wind_speed", bins, o) },
	}
}

// TestFigures draws every figure in every format, theme and width, and reads it
// back. With PLOTS_DIR set it leaves them there to be looked at.
func TestFigures(t *testing.T) {
	for name, f := range draws(t) {
		for _, o := range []plots.Options{
			{},
			{Width: 358, Theme: plots.Page},
			{Format: plots.PNG, Title: "Why this flight?"},
			{Format: plots.PNG, Theme: plots.Dark, Width: 358},
			{Width: 240},
		} {
			data, err := f(o)
			if err != nil {
				t.Fatalf("%s %+v: %v", name, o, err)
			}
			again, err := f(o)
			if err != nil || !bytes.Equal(data, again) {
				t.Errorf("%s %+v: drawn twice, differs (%v)", name, o, err)
			}
			check(t, name, o, data)
			if dir := os.Getenv("PLOTS_DIR"); dir != "" {
				file := fmt.Sprintf("%s-%s-%d.%s", name, o.Theme, o.Width, map[bool]string{true: "png", false: "svg"}[o.Format == plots.PNG])
				if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func check(t *testing.T, name string, o plots.Options, data []byte) {
	t.Helper()
	if o.Format == plots.PNG {
		img, err := png.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, _, _, a := img.At(0, 0).RGBA(); a != 0 {
			t.Errorf("%s: the background is not transparent", name)
		}
		return
	}
	if (o.Theme == plots.Page) != strings.Contains(string(data), "currentColor") || strings.Contains(string(data), "#012345") {
		t.Errorf("%s: theme %q does not colour the text as it says", name, o.Theme)
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%s: no XML: %v", name, err)
		}
	}
}

func TestTextOfWaterfall(t *testing.T) {
	data, err := plots.Waterfall(flight(14), plots.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"42 = dep_delay", "UA = carrier", "missing = visibility", "+1.31", "-0.62", "5 other features", "E[f(X)] = -0.84", "f(x) = "} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%q is not in the figure", want)
		}
	}
	first, second := bytes.Index(data, []byte("dep_delay")), bytes.Index(data, []byte("distance"))
	if first > second {
		t.Error("the largest effect is not the first")
	}
}

func TestRefusals(t *testing.T) {
	notFinite, apart := flight(3), flight(3)
	notFinite.Attributions[1].Phi = math.Inf(1)
	apart.Certificate.ResidualRelative = 0.5
	if _, err := plots.Waterfall(notFinite, plots.Options{}); err == nil {
		t.Error("an infinite effect was drawn")
	}
	if _, err := plots.Waterfall(apart, plots.Options{}); !errors.Is(err, plots.ErrNotAdditive) {
		t.Errorf("stacked what does not add up: %v", err)
	}
	if _, err := plots.Waterfall(&collector.Explanation{}, plots.Options{}); err == nil {
		t.Error("a figure of nothing was drawn")
	}
	for _, o := range []plots.Options{{Width: 10}, {Format: "gif"}, {Theme: "blue"}, {Theme: plots.Page, Format: plots.PNG}, {MaxFeatures: -1}} {
		if _, err := plots.Bar(flight(3), o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
