package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// discard is a response nobody reads.
type discard struct {
	h      http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) WriteHeader(s int)           { d.status = s }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

type body struct{ *strings.Reader }

func (body) Close() error { return nil }

// serveLoop sends the same request over and over to e.
func serveLoop(b *testing.B, e *echo.Echo, path, payload string) {
	req, err := http.NewRequest("POST", path, nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Host, req.ContentLength = "127.0.0.1", int64(len(payload))
	w := &discard{h: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.h)
		req.Body = body{strings.NewReader(payload)}
		e.ServeHTTP(w, req)
		if w.status != 200 {
			b.Fatal(w.status)
		}
	}
}

func thirty() (payload string, info *engine.Info) {
	cells := make([]string, 30)
	info = &engine.Info{
		Format: "xgboost", Task: engine.TaskRegression, Missing: true,
		Inputs:  []engine.Spec{{Name: "input", DType: engine.Float32, Shape: []int{-1, 30}}},
		Outputs: []engine.Spec{{Name: "prediction", DType: engine.Float32, Shape: []int{-1}}},
	}
	for i := range cells {
		cells[i] = fmt.Sprintf("%d.%04d", i*7, i*373)
		info.Features = append(info.Features, engine.Feature{Name: fmt.Sprintf("f%d", i)})
	}
	return inputs(tensor("input", "FP32", "[1,30]", "["+strings.Join(cells, ",")+"]")), info
}

// first answers the first column: what is measured is the way there and back.
type firstColumn struct{ info *engine.Info }

func (m firstColumn) Info() *engine.Info                                       { return m.info }
func (m firstColumn) NewSession(engine.SessionOptions) (engine.Session, error) { return m, nil }

func (m firstColumn) Run(_ context.Context, in engine.Values, _ []string) (engine.Values, error) {
	y, err := engine.Of([]float32{engine.Data[float32](in[0].Tensor)[0]}, 1)
	return engine.Values{{Name: "prediction", Tensor: y}}, err
}

func BenchmarkInfer(b *testing.B) {
	payload, info := thirty()
	r := newRig(b, func(c *Config) {
		c.Capture = func(context.Context, *collector.Prediction, *collector.ModelVersion, engine.Values, engine.Values) error {
			return nil
		}
	})
	r.shelf.models["m"], r.shelf.loaded["m"] = versionOf(b, "m", firstColumn{info}), true
	b.Run("json/features=30", func(b *testing.B) { serveLoop(b, r.e, "/v2/models/m/infer", payload) })
	// The floor: the same framework, the same body decoded with encoding/json.
	e := echo.New()
	e.POST("/v2/models/:model/infer", func(c echo.Context) error {
		var q struct {
			Inputs []struct {
				Name, Datatype string
				Shape          []int
				Data           []float32
			}
		}
		if err := json.NewDecoder(c.Request().Body).Decode(&q); err != nil {
			return err
		}
		return c.JSON(200, map[string]any{"model_name": "m", "outputs": []any{map[string]any{
			"name": "prediction", "datatype": "FP32", "shape": []int{1}, "data": q.Inputs[0].Data[:1],
		}}})
	})
	b.Run("bare-echo-encoding-json/features=30", func(b *testing.B) { serveLoop(b, e, "/v2/models/m/infer", payload) })
}
