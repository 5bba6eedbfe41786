package repository

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// configs are the model.yaml files of a model's versions, also of those that cannot be
// served: what they say is private is meant.
func configs(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // there is only a bare file
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range slices.Backward(entries) {
		dir := filepath.Join(folder, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		is, err := isDir(dir)
		if err != nil {
			return nil, err
		}
		if is && says(dir) {
			out = append(out, dir)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return compareVersions(filepath.Base(b), filepath.Base(a)) })
	return out, nil
}

// beside are the versions of a model that have a model.yaml, as they are on disk now.
func (r *Repository) beside(name string) ([]source, error) {
	if r.cfg.Dir == "" {
		return nil, nil
	}
	dirs, err := configs(filepath.Join(r.cfg.Dir, name))
	out := make([]source, len(dirs))
	for i, dir := range dirs {
		out[i] = source{name: name, version: filepath.Base(dir), dir: dir}
	}
	return out, err
}

// takeOver is what is private in a served version without a model.yaml: what is in any
// of the versions beside it. It is not served where one of those cannot be read.
func (r *Repository) takeOver(s source, info *engine.Info) (collector.ModelConfig, error) {
	sources, err := r.beside(s.name)
	cfg := collector.ModelConfig{}
	if err == nil {
		cfg, err = r.handedOn(s.name, s.version, sources, cfg, info)
	}
	if err != nil {
		return cfg, fmt.Errorf("it has no model.yaml, and what is private in its model's other versions cannot be read: %w", err)
	}
	if len(cfg.Features) > 0 {
		names := make([]string, len(cfg.Features))
		for i, f := range cfg.Features {
			names[i] = f.Name
		}
		r.cfg.Log.Warn("a version without a model.yaml takes over what is private in its model's other versions; a model.yaml of its own would say what is",
			"model", s.name, "version", s.version, "features", names)
	}
	return cfg, nil
}

// takeFrom adds to h what the configurations of other versions say; the first one that speaks
// of a feature counts.
func (r *Repository) takeFrom(h *handing, sources []source) error {
	for _, s := range sources {
		cfg, err := r.readConfig(&s)
		if err != nil {
			return fmt.Errorf("version %q: %w", s.version, err)
		}
		r.mu.RLock()
		if have := r.slotOf(s.name, s.version); have != nil && have.untold != "" && have.source.rules == digestOfText(s.text, nil) {
			err = fmt.Errorf("version %q: %s", s.version, have.untold) // it can be read, and does not fit its model
		}
		r.mu.RUnlock()
		if err != nil {
			return err
		}
		cfg, known := r.inOrder(s.name, s.version, cfg)
		h.take(cfg, known)
	}
	return nil
}

const inheritedText = "# Made by Pellucid: taken over from the other versions of the model.\n"

// inheritedYAML is the model.yaml that a version would have that says what it took over:
// the store keeps it beside the model, so that its digest tells it from the same model
// with nothing private, and its past predictions are read by it when the others have gone.
func inheritedYAML(took collector.ModelConfig) ([]byte, error) {
	if len(took.Features) == 0 && took.Subject == "" {
		return nil, nil
	}
	quoted := func(s string) string {
		b, _ := json.Marshal(s) // text always marshals
		return string(b)
	}
	var b bytes.Buffer
	b.WriteString(inheritedText + "features:\n")
	for _, f := range took.Features {
		fmt.Fprintf(&b, "  - {name: %s, private: %s}\n", quoted(f.Name), f.Private)
	}
	if took.Subject != "" {
		fmt.Fprintf(&b, "subject: %s\n", quoted(took.Subject))
	}
	again, err := ParseConfig(b.Bytes(), "model.yaml")
	if err != nil || !slices.Equal(again.Features, took.Features) || again.Subject != took.Subject {
		return nil, errors.Join(errors.New("what is private in the model's other versions cannot be written down"), err)
	}
	return b.Bytes(), nil
}
