package simd

import (
	"encoding/binary"
	"encoding/hex"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Instructions that the assembly spells in bytes, because the assembler does not know them, are
// what another assembler makes of their names.
func TestEncodings(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	got, want := map[string]string{}, map[string]string{}
	for line := range strings.Lines(read("testdata/encodings.tsv")) {
		if fields := strings.Split(line, "\t"); len(fields) == 3 {
			want[fields[0]] = fields[1]
		}
	}
	number := regexp.MustCompile(`(BYTE|LONG)\s+\$(\w+)`)
	collect := func(name, text string) {
		var code []byte
		for _, m := range number.FindAllStringSubmatch(text, -1) {
			n, err := strconv.ParseUint(m[2], 0, 32)
			if err != nil {
				t.Fatal(err)
			}
			if m[1] == "BYTE" {
				code = append(code, byte(n))
			} else {
				code = binary.LittleEndian.AppendUint32(code, uint32(n))
			}
		}
		if spelt := hex.EncodeToString(code); got[name] == "" || got[name] == spelt {
			got[name] = spelt
		} else {
			t.Errorf("%s is both %s and %s", name, got[name], spelt)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^#define (\w+)\s+(BYTE.*)$`).FindAllStringSubmatch(read("amx_amd64.s"), -1) {
		collect(m[1], m[2])
	}
	for _, m := range regexp.MustCompile(`// (VPDPBUSD .*)\n((?:\s+BYTE .*\n)+)`).FindAllStringSubmatch(read("zbyte_amd64.s"), -1) {
		collect(m[1], m[2])
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if got[name] != want[name] {
			t.Errorf("%s is spelt %s, want %s", name, got[name], want[name])
		}
	}
	if len(got) < len(want) {
		t.Errorf("%d of %d instructions found", len(got), len(want))
	}
}
