package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/repository"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/train"
)

// modelFile and modelYAML are the names of a version's files.
const (
	modelFile   = "model.onnx"
	xgboostFile = "model.json"
	modelYAML   = "model.yaml"
)

// fileName is the name of the model's file, without a folder.
func (o *fitOptions) fileName() string {
	switch {
	case !o.toFolder():
		return filepath.Base(o.output)
	case o.xgboost():
		return xgboostFile
	}
	return modelFile
}

// toFolder reports whether --output is a version's folder, not a file.
func (o *fitOptions) toFolder() bool {
	ext := filepath.Ext(o.output)
	return !strings.EqualFold(ext, ".onnx") && !(o.kind == treesKind && strings.EqualFold(ext, ".json"))
}

// checkOutput refuses to write over what was there.
func (o *fitOptions) checkOutput() error {
	if o.toFolder() {
		if ext := filepath.Ext(o.output); ext != "" && strings.Trim(ext[1:], "0123456789") != "" {
			return usage(fmt.Errorf("--output %q is neither an .onnx file nor a folder models/NAME/VERSION", filepath.Base(o.output)))
		}
		entries, err := os.ReadDir(o.output)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("--output: %w", err)
		}
		return usageIf(len(entries) > 0, "--output is a folder that is not empty: a version is never written over")
	}
	for flag, path := range map[string]string{"from": o.from, "input": o.input} {
		if path == "" {
			continue
		}
		if same, err := sameFile(path, o.output); err != nil || same {
			return errors.Join(err, usageIf(same, "--output is the file of --"+flag+": it is never written over"))
		}
	}
	return nil
}

// write puts the model where it is to be, and returns its path. A folder appears whole,
// so that a server that watches does not take half a version.
func (o *fitOptions) write(f *train.Fitted, info *engine.Info, rows *fitRows) (string, error) {
	if !o.toFolder() {
		if err := writeWhole(o.output, f.Model); err != nil {
			return "", fmt.Errorf("write %s: %w", o.output, err)
		}
		return o.output, nil
	}
	above := filepath.Dir(filepath.Clean(o.output))
	if err := os.MkdirAll(above, 0o755); err != nil {
		return "", fmt.Errorf("write %s: %w", o.output, err)
	}
	dir, err := os.MkdirTemp(above, ".pellucid-*") // what begins with a dot is no version
	if err != nil {
		return "", fmt.Errorf("write %s: %w", o.output, err)
	}
	err = o.fill(dir, f, info, rows)
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.Rename(dir, o.output))
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("write %s: %w", o.output, err), os.RemoveAll(dir))
	}
	return filepath.Join(o.output, o.fileName()), nil
}

// fill writes the files of a version. What was said of the network of --from holds for
// the one made of it, above all which features are private.
func (o *fitOptions) fill(dir string, f *train.Fitted, info *engine.Info, rows *fitRows) error {
	if err := writeWhole(filepath.Join(dir, o.fileName()), f.Model); err != nil {
		return err
	}
	if o.from == "" {
		private, subject, err := o.privateBeside(info)
		if err != nil {
			return err
		}
		if len(private) > 0 {
			names := slices.Sorted(maps.Keys(private))
			rows.private = strings.Join(names, ", ") + ", as in the versions beside it"
			rows.kept = fmt.Sprintf("none: feature %q is private", names[0])
		} else {
			reference, err := rows.reference(rows.features, f.Training)
			if err == nil {
				err = writeWhole(filepath.Join(dir, referenceFile), reference)
			}
			if err != nil {
				return err
			}
		}
		text, err := modelYAMLOf(info, rows.labels.Classes, private, subject)
		if err != nil {
			return err
		}
		return writeWhole(filepath.Join(dir, modelYAML), text)
	}
	beside := filepath.Dir(o.from)
	text, cfg, err := o.configBeside()
	if err != nil || text == nil {
		return err
	}
	made, text, err := o.referenceAnew(dir, text, &cfg, f, info, rows)
	if err != nil {
		return err
	}
	for _, name := range []string{cfg.Reference, cfg.Background} {
		if name == "" || name == made {
			continue
		}
		if !filepath.IsLocal(name) {
			return fmt.Errorf("%s names %q, which is outside its folder", modelYAML, name)
		}
		if err := copyFile(filepath.Join(beside, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return writeWhole(filepath.Join(dir, modelYAML), text)
}

// referenceAnew writes rows learnt from as the reference of a network that was fitted anew,
// which drifts from those and not from what the one before it was fitted to, and returns its
// name and the model.yaml that names it. A model without a reference gets none, and
// the old one is kept where columns are not named after the features, and where a feature is
// private: its values are not written to one more file.
func (o *fitOptions) referenceAnew(dir string, text []byte, cfg *collector.ModelConfig, f *train.Fitted, info *engine.Info, rows *fitRows) (string, []byte, error) {
	why := ""
	names := make([]string, 0, len(info.Features))
	for _, feature := range info.Features {
		if rows.table.Column(feature.Name) == nil {
			why = fmt.Sprintf("the rows have no column %q", feature.Name)
		}
		names = append(names, feature.Name)
	}
	switch {
	case cfg.Reference == "":
		return "", text, nil
	case !filepath.IsLocal(cfg.Reference):
		return "", text, nil // refused by name when it would be copied
	case len(names) == 0:
		why = "its inputs are no columns"
	case cfg.PrivateFeature() != "":
		why = fmt.Sprintf("feature %q is private", cfg.PrivateFeature())
	}
	if why != "" {
		rows.kept = "as it was: " + why
		return "", text, nil
	}
	reference, err := rows.reference(names, f.Training)
	if err != nil {
		return "", nil, err
	}
	name := cfg.Reference
	if !strings.EqualFold(filepath.Ext(name), ".parquet") {
		name = referenceFile
		line := regexp.MustCompile(`(?m)^reference:.*$`)
		if len(line.FindAll(text, -1)) != 1 {
			return "", nil, fmt.Errorf("%s names its reference in a way that is not understood", modelYAML)
		}
		text = line.ReplaceAll(text, []byte("reference: "+name))
		again, err := repository.ParseConfig(text, modelYAML)
		if err != nil || again.Reference != name {
			return "", nil, errors.Join(fmt.Errorf("%s does not name %s", modelYAML, name), err)
		}
		cfg.Reference = name
	}
	rows.kept = fmt.Sprintf("made anew of %d rows learnt from", min(len(f.Training), referenceRows))
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", nil, err
	}
	return name, text, writeWhole(path, reference)
}

func copyFile(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, f)
	return errors.Join(err, out.Sync(), out.Close())
}

// modelYAMLOf is what people would write about a model that was fitted here. Texts are
// written as JSON's, which YAML reads.
func modelYAMLOf(info *engine.Info, classes []string, private map[string]collector.Privacy, subject string) ([]byte, error) {
	var b strings.Builder
	text := func(s string) string {
		out, _ := json.Marshal(s) // a string has a JSON form, whatever it holds
		return string(out)
	}
	fmt.Fprintf(&b, "task: %s\n", info.Task)
	if len(classes) > 0 {
		b.WriteString("classes:\n")
		for _, c := range classes {
			fmt.Fprintf(&b, "  - %s\n", text(c))
		}
	}
	b.WriteString("features:\n")
	for _, f := range info.Features {
		kind := "numeric"
		if f.Categorical {
			kind = "categorical"
		}
		fmt.Fprintf(&b, "  - name: %s\n    kind: %s\n", text(f.Name), kind)
		if how := private[f.Name]; how != collector.PrivacyNone {
			fmt.Fprintf(&b, "    private: %s\n", how)
		}
	}
	if len(private) == 0 {
		fmt.Fprintf(&b, "reference: %s\n", referenceFile)
	} else if subject != "" {
		fmt.Fprintf(&b, "subject: %s\n", text(subject))
	}
	out := []byte(b.String())
	if _, err := repository.ParseConfig(out, modelYAML); err != nil {
		return nil, err
	}
	return out, nil
}
