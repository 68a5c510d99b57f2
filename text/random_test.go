package text

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// answersOf returns the stored answers of the original libraries. With
// $CAROUSEL_TOKENIZERS_PYTHON naming an interpreter that has them, it asks for new
// ones with a script of internal/golden/gen, whose arguments a variable may set.
func answersOf(t *testing.T, script, variable, arguments, stored string) []byte {
	t.Helper()
	if python := os.Getenv("CAROUSEL_TOKENIZERS_PYTHON"); python != "" && !testing.Short() {
		if set := os.Getenv(variable); set != "" {
			arguments = set
		}
		path := filepath.Join("..", "internal", "golden", "gen", script)
		cmd := exec.CommandContext(t.Context(), python, append([]string{path}, strings.Fields(arguments)...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	content, err := os.ReadFile(filepath.Join("testdata", stored))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// Tokenizers of random settings give the ids and the decoded texts of the
// original libraries, which internal/golden/gen/text_random.py asks;
// $CAROUSEL_TOKENIZERS_RANDOM are its arguments.
func TestRandomTokenizers(t *testing.T) {
	rows := answersOf(t, "text_random.py", "CAROUSEL_TOKENIZERS_RANDOM", "1 40 100", "random.jsonl.gz")
	lines := bufio.NewScanner(bytes.NewReader(rows))
	lines.Buffer(nil, 1<<26)
	n := 0
	for lines.Scan() {
		var row struct {
			File    string   `json:"file"`
			Model   []byte   `json:"model"`
			About   string   `json:"about"`
			Texts   []string `json:"texts"`
			IDs     [][]int32
			Decoded []string
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		content := []byte(row.File)
		if row.About == "" {
			var parts struct {
				Normalizer   json.RawMessage `json:"normalizer"`
				PreTokenizer json.RawMessage `json:"pre_tokenizer"`
				Decoder      json.RawMessage `json:"decoder"`
				AddedTokens  json.RawMessage `json:"added_tokens"`
			}
			json.Unmarshal(content, &parts)
			about, _ := json.Marshal(parts)
			row.About = string(about)
		} else {
			content = row.Model
		}
		tok, err := parse("file", content)
		if err != nil {
			t.Errorf("%d, %s: %v", n, row.About, err)
			continue
		}
		wrong := 0
		for i, s := range row.Texts {
			ids := tok.Encode([]int32{}, s)
			switch got := tok.Decode(row.IDs[i]); {
			case !slices.Equal(ids, row.IDs[i]):
				t.Errorf("%d: %q: ids %v, not %v", n, s, names(tok, ids), names(tok, row.IDs[i]))
			case got != row.Decoded[i]:
				t.Errorf("%d: %q: %v decoded %q, not %q", n, s, names(tok, ids), got, row.Decoded[i])
			default:
				continue
			}
			if wrong++; wrong == 3 {
				break
			}
		}
		if wrong > 0 {
			t.Errorf("%d is %s", n, row.About)
		}
		n++
	}
	t.Logf("%d tokenizers", n)
}

// Steps that together make a text grow without measure are refused, and those of
// tokenizers in use are not.
func TestGrowthIsBounded(t *testing.T) {
	const model = `"model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"a":1}}}`
	ten := `{"type":"Replace","pattern":{"String":"a"},"content":"aaaaaaaaaa"}`
	anything := `{"type":"Replace","pattern":{"Regex":"."},"content":"yyyyyyyyyy"}`
	spaces := `{"type":"Metaspace","replacement":"     ","prepend_scheme":"never","split":false}`
	list := func(key, one string, n int) string {
		return `{"type":"Sequence","` + key + `":[` + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + `]}`
	}
	for file, want := range map[string]string{
		`{"normalizer":` + list("normalizers", ten, 1) + "," + model:                                                         "",
		`{"normalizer":` + list("normalizers", ten, 12) + "," + model:                                                        `a text of "aaaaaaaaaa" more than 16 times as long`,
		`{"normalizer":` + list("normalizers", anything, 3) + "," + model:                                                    "more than 16 times as long",
		`{"pre_tokenizer":` + list("pretokenizers", spaces, 9) + "," + model:                                                 "more than 16 times as long",
		`{"normalizer":{"type":"Replace","pattern":{"Regex":"` + strings.Repeat(`\\w|`, 5000) + `x"},"content":""},` + model: "it is too large",
		`{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a)\\1"},"behavior":"Isolated"},` + model:                      "byte 4: references to a group",
		`{"pre_tokenizer":{"type":"FixedLength","length":0},` + model:                                                        "at least 1 is needed",
	} {
		_, err := parse("file", []byte(file))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%.60s...: %v, want %q", file, err, want)
		}
	}
}
