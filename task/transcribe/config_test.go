package transcribe

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

// Configurations that were written before settings got their names of today.
func TestOldConfigsOpen(t *testing.T) {
	var got struct {
		Config   Config        `json:"config"`
		Decoding savedDecoding `json:"decoding"`
	}
	readJSON(t, "testdata/config_before_names.json", &got)
	want := Defaults()
	want.Tokens, want.VocabularySize, want.LMTokens = "space", 400, true
	want.SplitColumn, want.Holdout, want.Frame, want.StackStride, want.Warmup = "fold", 0.25, 30, 2, 0.07
	if !reflect.DeepEqual(got.Config, want) {
		t.Errorf("got  %+v\nwant %+v", got.Config, want)
	}
	if d := (savedDecoding{Decoding{Beam: 9, LMTokens: true}, 3}); !reflect.DeepEqual(got.Decoding, d) {
		t.Errorf("got %+v, want %+v", got.Decoding, d)
	}
	for kind, today := range map[string]string{"characters": "char", "symbols": "space", "bpe": "bpe"} {
		c := saved{Config: Defaults(), Alphabet: &alphabet{Kind: kind, Units: []string{"a"}}}
		c.Config.Tokens, c.Width = today, c.Config.Bands
		if err := c.check(); err != nil || c.Alphabet.Kind != today {
			t.Errorf("an alphabet of %s is of %s, %v", kind, c.Alphabet.Kind, err)
		}
	}
	for _, ptr := range []any{&want, &savedDecoding{}} {
		if err := json.Unmarshal([]byte(`{"unknown": 1}`), ptr); err == nil {
			t.Errorf("%T: an unknown setting is accepted", ptr)
		}
	}
}

func readJSON(t *testing.T, path string, to any) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, to); err != nil {
		t.Fatal(err)
	}
}
