package collector

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// BenchmarkScrubber looks through the texts that spans have: prose with numbers in it,
// addresses, JSON within JSON and base64; for values that are texts and for numbers.
func BenchmarkScrubber(b *testing.B) {
	r := rand.New(rand.NewPCG(3, 4))
	var texts, numbers []json.RawMessage
	for i := range 15 {
		texts = append(texts, json.RawMessage(fmt.Sprintf(`"Customer %x of Zürich-%d"`, r.Uint32(), i)))
		numbers = append(numbers, json.RawMessage(fmt.Sprint(r.Float64()*1e6)))
	}
	prose := strings.Repeat("The request to the upstream took 12.34 ms and failed after 3 attempts: connection refused by 10.0.0.1:8080 while loading features of the 1,235 rows. ", 8)
	inputs := []struct{ name, text string }{
		{"prose", prose},
		{"name", "POST /v2/models/loans/infer"},
		{"umlauts", strings.ReplaceAll(prose, "e", "ü")},
		{"accents apart", strings.ReplaceAll(prose, "e", "u\u0308")},
		{"address", strings.Repeat("GET /v1/things?name=Zo%C3%AB+%22Q%22&amount=12%2C416.5&page=3 HTTP/1.1 ", 8)},
		{"json", strings.Repeat(`{"model":"loans","inner":"{\"a\":1234.5,\"b\":\"some text\\n\"}"},`, 8)},
		{"base64", base64.StdEncoding.EncodeToString([]byte(prose))},
	}
	for _, values := range []struct {
		name string
		list []json.RawMessage
	}{{"texts", texts}, {"numbers", numbers}, {"both", append(append([]json.RawMessage(nil), texts...), numbers...)}} {
		x := NewScrubber(values.list, nil)
		for _, in := range inputs {
			b.Run(values.name+"/"+in.name, func(b *testing.B) {
				b.SetBytes(int64(len(in.text)))
				b.ReportAllocs()
				for b.Loop() {
					x.Text(in.text)
				}
			})
		}
	}
}
