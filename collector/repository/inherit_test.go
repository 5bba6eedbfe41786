package repository

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pellucid/pellucid/collector"
)

// privateOf is what is private in a version, "name policy".
func privateOf(v *collector.ModelVersion) (out []string) {
	if v == nil {
		return nil
	}
	for _, f := range v.Config.Features {
		if f.Private != collector.PrivacyNone {
			out = append(out, f.Name+" "+string(f.Private))
		}
	}
	slices.Sort(out)
	return out
}

// TestPrivacyIsTakenOver: a version that says nothing about privacy, served from a folder
// or a bare file, does not bring into the open what is private in the others.
func TestPrivacyIsTakenOver(t *testing.T) {
	f := newFixture(t)
	for _, v := range []string{"m/1", "m/2", "m/10", "none/1", "broken/1"} {
		f.model(t, v)
	}
	other := newFixture(t)
	other.model(t, "m/1")
	plain, err := other.open(t, time.Hour).Find("m", "1")
	if err != nil {
		t.Fatal(err)
	}
	var v []string
	for _, feature := range plain.Info.Features {
		v = append(v, feature.Name)
	}
	f.write(t, "m/2/model.yaml", "features: [{name: "+v[0]+", private: drop}]\nsubject: "+v[2]+"\n")
	f.write(t, "m/3/model.yaml", "features: [{name: "+v[1]+", private: mask}, {name: "+v[0]+", private: mask}]\n") // of imported predictions
	f.write(t, "m/10/notes.csv", "what lies beside it may be rows")
	f.write(t, "broken/2/model.yaml", "features: [{name: "+v[0]+", private: nothing}]\n")
	var log bytes.Buffer
	r, err := Open(t.Context(), Config{Dir: f.dir, Store: f.store, Poll: time.Hour, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	want := []string{v[0] + " mask", v[1] + " mask"}
	for version, want := range map[string][]string{"1": want, "10": want, "2": {v[0] + " drop"}} {
		got, err := r.Find("m", version)
		if err != nil || !slices.Equal(privateOf(got), want) {
			t.Errorf("version %s: %v, %v, want %v", version, privateOf(got), err, want)
		}
		if err == nil && got.Config.Subject != v[2] {
			t.Errorf("version %s: subject %q", version, got.Config.Subject)
		}
	}
	if got, err := r.Find("none", "1"); err != nil || len(privateOf(got)) > 0 {
		t.Errorf("one without others: %v, %v", privateOf(got), err)
	}
	if s := state(r, "broken", "1"); s.State == "READY" || !strings.Contains(s.Reason, "other versions cannot be read") {
		t.Errorf("others that cannot be read: %+v", s)
	}
	if text := log.String(); !strings.Contains(text, "takes over what is private") || !strings.Contains(text, "version=10") || strings.Contains(text, "model=none version=1 features") {
		t.Errorf("the log: %s", text)
	}
	// Read back from the store it is the same, when the others have gone.
	ten, err := r.Find("m", "10")
	if err != nil {
		t.Fatal(err)
	}
	back, err := r.fromStore(ten.Digest)
	if err != nil || !slices.Equal(privateOf(back.version), want) || back.version.Schema.ID != ten.Schema.ID {
		t.Errorf("from the store: %v", err)
	}
	// What is said later holds from then on, without a restart of the model.
	f.write(t, "none/2/model.yaml", "feature_names: ["+strings.Join(named(len(v)), ", ")+"]\nfeatures: [{name: n1, private: drop}]\n")
	later(r)
	if err := r.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Find("none", "1"); err != nil || !slices.Equal(privateOf(got), []string{v[1] + " drop"}) {
		t.Errorf("by its place: %v, %v", privateOf(got), err)
	}
}

func named(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "n" + string(rune('0'+i%10)) + strings.Repeat("_", i/10)
	}
	return out
}
