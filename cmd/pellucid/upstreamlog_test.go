package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAnUpstreamsErrorsAreNotLogged: while its reference is made an upstream gets rows of
// it, and may repeat them in an error or an answer of its own making.
func TestAnUpstreamsErrorsAreNotLogged(t *testing.T) {
	const canary = "Schwanenwerder"
	for name, answer := range map[string]func(w http.ResponseWriter, body string){
		"refused": func(w http.ResponseWriter, body string) {
			http.Error(w, `{"error":`+fmt.Sprintf("%q", "nope "+body)+`}`, http.StatusBadRequest)
		},
		"failed": func(w http.ResponseWriter, body string) { http.Error(w, body, http.StatusInternalServerError) },
		"a tensor's name": func(w http.ResponseWriter, body string) {
			fmt.Fprintf(w, `{"model_name":"m","outputs":[{"name":%q,"datatype":"FP32","shape":[1],"data":[1]}]}`, body)
		},
		"a datatype": func(w http.ResponseWriter, body string) {
			fmt.Fprintf(w, `{"model_name":"m","outputs":[{"name":"y","datatype":%q,"shape":[1],"data":[1]}]}`, body)
		},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan struct{}, 100)
			far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body) // what there is of it is repeated
				if strings.Contains(string(body), canary) {
					answer(w, string(body))
					select {
					case asked <- struct{}{}:
					default:
					}
					return
				}
				fmt.Fprint(w, `{"name":"m","versions":["1"],"platform":"p","ready":true,"inputs":[{"name":"town","datatype":"BYTES","shape":[-1]},{"name":"x","datatype":"FP32","shape":[-1]}],`+
					`"outputs":[{"name":"y","datatype":"FP32","shape":[-1]}]}`)
			}))
			defer far.Close()
			reference := filepath.Join(t.TempDir(), "reference.csv")
			if err := os.WriteFile(reference, []byte("town,x\n"+strings.Repeat(canary+",1\n", 50)), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg := testConfig(t, t.TempDir())
			cfg.Upstreams = upstreamsOf(t, fmt.Sprintf("\nupstreams:\n  - name: far\n    url: %s\n    model: m\n    task: regression\n    features: [{name: town, private: drop}]\n    reference: %s\n", far.URL, reference))
			r := startRig(t, cfg)
			<-asked
			until(t, "it is said that there is no reference", func() bool { return strings.Contains(r.log.String(), "make a reference for far 1") })
			if log := r.log.String(); strings.Contains(log, canary) {
				t.Errorf("the log says %s", log)
			}
		})
	}
}
