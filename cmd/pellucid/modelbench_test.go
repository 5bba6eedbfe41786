package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// TestModelBench times models over what is drawn and what is given.
func TestModelBench(t *testing.T) {
	reference, dir := mlp+"reference.parquet", t.TempDir()
	place(t, dir, "test_data_set_0/input_0.pb", tensorProto("input", []int{2, 15}, make([]float32, 30)))
	for _, c := range []struct {
		args []string
		rows int
	}{
		{[]string{gbm + "model.ubj"}, 1},
		{[]string{gbm + "model.ubj", "--batch", "7", "--threads", "2"}, 7},
		{[]string{mlp, "--data", reference, "--batch", "5"}, 5},
		{[]string{gbm + "model.ubj", "--shape", "input=3,15", "--batch", "3"}, 3},
		{[]string{gbm + "model.ubj", "--data", dir}, 2},
		{[]string{gbm + "model.ubj", "--data", filepath.Join(dir, "test_data_set_0"), "--batch", "1"}, 1},
	} {
		args := append([]string{"model", "bench", "--seconds", "0", "--runs", "4", "--format", "json"}, c.args...)
		var got benchResult
		d := json.NewDecoder(strings.NewReader(pellucid(t, args...)))
		d.DisallowUnknownFields()
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(got.Model) == "" || got.Batch != c.rows || got.Runs != 4 || got.Threads < 1 || !(got.Median > 0) || got.P99 < got.Median {
			t.Errorf("%q: %+v", c.args, got)
		}
	}
	if got := pellucid(t, "model", "bench", gbm+"model.ubj", "--seconds", "0", "--runs", "1"); !strings.Contains(got, "model.ubj: ") || !strings.Contains(got, " a run of 1 row ") || !strings.Contains(got, "1 run, 1 thread") {
		t.Error(got)
	}
	for _, bad := range [][]string{{"--batch", "0"}, {"--seconds", "-1"}, {"--format", "xml"}, {"--data", reference, "--shape", "carrier=1,1"}, {"--data", reference, "--batch", "100000000"}} {
		fails(t, 2, append([]string{"model", "bench", mlp}, bad...)...)
	}
	fails(t, 1, "model", "bench", mlp, "--data", "nosuch.csv")
}
