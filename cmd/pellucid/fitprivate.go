package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/repository"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/table"
)

// configBeside reads the model.yaml beside the network of --from, nil where there is none.
func (o *fitOptions) configBeside() ([]byte, collector.ModelConfig, error) {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(o.from), modelYAML))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, collector.ModelConfig{}, nil
	}
	if err != nil {
		return nil, collector.ModelConfig{}, err
	}
	cfg, err := repository.ParseConfig(text, modelYAML)
	return text, cfg, err
}

// checkPrivate refuses to learn from what an export holds of private features: masks
// and hashes are not what the model will be given.
func (o *fitOptions) checkPrivate(t *table.Table) error {
	if !exportedTable(t) {
		return nil
	}
	if o.from != "" {
		_, cfg, err := o.configBeside()
		if err != nil {
			return err
		}
		if name := cfg.PrivateFeature(); name != "" {
			return usage(fmt.Errorf("%s is an export, which has no clear values of feature %q, private in the %s beside --from: fit to rows that have them, or a new model with --features that leave it out", o.input, name, modelYAML))
		}
	}
	for i := range t.Columns {
		c := &t.Columns[i]
		if o.from == "" && !slices.Contains(o.features, c.Name) {
			continue
		}
		if c.Type == table.String && slices.Contains(c.Str, collector.Masked) {
			return usage(fmt.Errorf("%s is an export in which values of column %q are masked: leave it out of --features, or fit to rows that have them", o.input, c.Name))
		}
	}
	return nil
}

// exportWeights is the column in which an export says what its rows count for, "" in
// other files.
func exportWeights(t *table.Table) string {
	for _, name := range []string{otherWeight, exported[weightAt]} {
		if exportedTable(t) && t.Column(name) != nil {
			return name
		}
	}
	return ""
}

// privateBeside is what versions beside the folder that is to be written say is private of a
// model's features, the stricter of each: a new version brings nothing of it into the open.
// subject is the feature that says whose a row is, where one of them has such and the model too.
func (o *fitOptions) privateBeside(info *engine.Info) (out map[string]collector.Privacy, subject string, err error) {
	out = map[string]collector.Privacy{}
	above := filepath.Dir(filepath.Clean(o.output))
	entries, err := os.ReadDir(above)
	if err != nil {
		return nil, "", err
	}
	for _, e := range entries {
		name := filepath.Join(e.Name(), modelYAML)
		text, err := os.ReadFile(filepath.Join(above, name))
		if errors.Is(err, fs.ErrNotExist) || !isFolder(filepath.Join(above, e.Name())) {
			continue
		}
		var cfg collector.ModelConfig
		if err == nil {
			cfg, err = repository.ParseConfig(text, modelYAML)
		}
		if err != nil {
			return nil, "", fmt.Errorf("what is private in %s beside --output is not known: %w", name, err)
		}
		policies := cfg.Policies()
		for _, f := range info.Features {
			for private, how := range policies {
				if strings.EqualFold(f.Name, private) {
					out[f.Name] = collector.Stricter(out[f.Name], how)
				}
			}
			if strings.EqualFold(f.Name, cfg.Subject) {
				subject = f.Name
			}
		}
	}
	return out, subject, nil
}
