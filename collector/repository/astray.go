package repository

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// isYAML reports whether a file's name is that of a YAML file, capitals or not.
func isYAML(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return ext == ".yaml" || ext == ".yml"
}

// meantForConfig reports whether somebody who gave a file this name meant a model.yaml.
func meantForConfig(name string) bool {
	name = strings.ToLower(name)
	return name == configFile || name == "model.yml"
}

// judgeAstray decides what files mean that are read for no version. One that may say what is
// private, or cannot be read, closes the model until it lies where it is read: whoever wrote
// it takes those fields for hidden. Another is told of. A NAME.yaml in the models' folder may
// be anything where there is no model of that name. The caller holds mu, for reading.
func (r *Repository) judgeAstray(l *listing) {
	r.judging.Lock()
	defer r.judging.Unlock()
	maps.DeleteFunc(r.astrayHid, func(file string, _ finding) bool {
		return !exists(filepath.Join(r.cfg.Dir, file)) // moved, which is what was asked for
	})
	for name, files := range l.astray {
		known := r.models[name] != nil || slices.ContainsFunc(l.found, func(s source) bool { return s.name == name })
		files = slices.DeleteFunc(files, func(file string) bool { return !known && filepath.Dir(file) == "." })
		if l.astray[name] = files; len(files) == 0 {
			delete(l.astray, name)
			continue
		}
		for _, file := range files {
			if r.mayHide(file) && l.unseen[name] == "" {
				l.unseen[name] = fmt.Sprintf("%s may say what is private, and is read for no version: move it to %s, for each version that it is meant for", file, filepath.Join(name, "VERSION", configFile))
			}
		}
	}
}

// mayHide reports whether a file in the models' folder may say what is private, or did until less than
// a look's interval ago: half of it may not say so yet. The caller holds judging.
func (r *Repository) mayHide(file string) bool {
	path := filepath.Join(r.cfg.Dir, file)
	written, _ := stampOf(path) // before it is read
	if mayHide(path) {
		r.astrayHid[file] = finding{}
		return true
	}
	was, hid := r.astrayHid[file]
	switch {
	case !hid:
		return false
	case was.written != written:
		r.astrayHid[file] = finding{written: written, ended: time.Now()}
		return true
	case time.Since(was.ended) < r.cfg.Poll:
		return true
	}
	delete(r.astrayHid, file)
	return false
}

// mayHide reports whether a file may say what is private.
func mayHide(path string) bool {
	f, err := openRegular(path)
	if err != nil {
		return true
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	return err != nil || len(text) > maxConfig || bytes.Contains(bytes.ToLower(text), []byte("private"))
}

// sawAstray tells of files that are read for no version, once of each.
func (r *Repository) sawAstray(l *listing) {
	now := map[string]string{}
	for name, files := range l.astray {
		now[name] = fmt.Sprintf("%s is read for no version: it belongs to %s", strings.Join(files, ", "), filepath.Join(name, "VERSION", configFile))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, why := range now {
		if r.doNothing[name] != why {
			r.cfg.Log.Warn("a file in the models' folder does nothing", "model", name, "note", why)
		}
	}
	r.doNothing = now
}
