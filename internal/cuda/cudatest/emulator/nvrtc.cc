// A stand-in for NVRTC (libnvrtc.so.13): it makes of a file of kernels, with the system's
// C++ compiler and emulated.h, what the stand-in for the driver loads. build.h, which
// package cudatest writes, has the compiler's command, the text of emulated.h and a number
// of both, which is the version, for users keep what was compiled by that.
#include "build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <string>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// Values of nvrtc.h.
enum Result { ok = 0, invalid_input = 3, invalid_program = 4, invalid_option = 5, compilation = 6 };

struct Program {
	std::string source, image, log;
};

const int archs[] = {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};

bool write_file(const std::string &path, const std::string &text) {
	FILE *f = fopen(path.c_str(), "w");
	if (!f)
		return false;
	bool good = fwrite(text.data(), 1, text.size(), f) == text.size();
	return fclose(f) == 0 && good;
}

std::string read_file(const std::string &path) {
	std::string text;
	if (FILE *f = fopen(path.c_str(), "r")) {
		char part[1 << 14];
		while (size_t n = fread(part, 1, sizeof part, f))
			text.append(part, n);
		fclose(f);
	}
	return text;
}

// quoted makes a word of the shell.
std::string quoted(const std::string &word) {
	std::string out = "'";
	for (char c : word)
		out += c == '\'' ? "'\\''" : std::string(1, c);
	return out + "'";
}

int compile(Program *p, const std::string &macros) {
	const char *temporary = getenv("TMPDIR");
	std::string dir = std::string(temporary && *temporary ? temporary : "/tmp") + "/emulated-XXXXXX";
	if (!mkdtemp(&dir[0])) {
		p->log = "no folder " + dir;
		return compilation;
	}
	int result = compilation;
	if (!write_file(dir + "/emulated.h", build_header) || !write_file(dir + "/kernels.cc", "#include \"emulated.h\"\n" + p->source))
		p->log = "the source cannot be written to " + dir;
	else if (system(("cd " + quoted(dir) + " && " + build_command + macros + " -o kernels.so kernels.cc 2>log").c_str()) == 0) {
		p->image = read_file(dir + "/kernels.so");
		result = ok;
	} else
		p->log = read_file(dir + "/log");
	for (const char *file : {"/emulated.h", "/kernels.cc", "/kernels.so", "/log"})
		unlink((dir + file).c_str());
	rmdir(dir.c_str());
	return result;
}

int get(char *to, const std::string &from, bool ends) {
	memcpy(to, from.c_str(), from.size() + ends);
	return ok;
}

} // namespace

EXPORT int nvrtcVersion(int *major, int *minor) {
	*major = 13;
	*minor = build_version;
	return ok;
}

EXPORT int nvrtcGetNumSupportedArchs(int *count) {
	*count = sizeof archs / sizeof *archs;
	return ok;
}

EXPORT int nvrtcGetSupportedArchs(int *list) {
	memcpy(list, archs, sizeof archs);
	return ok;
}

EXPORT int nvrtcCreateProgram(Program **program, const char *source, const char *, int headers, const char *const *, const char *const *) {
	if (!source || headers)
		return invalid_input;
	*program = new Program{source, "", ""};
	return ok;
}

EXPORT int nvrtcDestroyProgram(Program **program) {
	delete *program;
	*program = nullptr;
	return ok;
}

EXPORT int nvrtcCompileProgram(Program *p, int count, const char *const *options) {
	std::string macros;
	bool arch = false;
	for (int i = 0; i < count; i++) {
		std::string o = options[i];
		if (o.rfind("-D", 0) == 0)
			macros += " " + quoted(o);
		else if (o.rfind("--gpu-architecture=", 0) == 0)
			for (int a : archs)
				arch = arch || o.substr(19) == "sm_" + std::to_string(a) || o.substr(19) == "compute_" + std::to_string(a);
		else if (o != "--std=c++17" && o != "-default-device") {
			p->log = "option " + o + " is not emulated";
			return invalid_option;
		}
	}
	if (!arch) {
		p->log = "no architecture, or one that is unknown";
		return invalid_option;
	}
	return compile(p, macros);
}

EXPORT int nvrtcGetProgramLogSize(Program *p, size_t *bytes) {
	*bytes = p->log.size() + 1;
	return ok;
}
EXPORT int nvrtcGetProgramLog(Program *p, char *log) { return get(log, p->log, true); }

// What is compiled is the same for a device and as PTX.
EXPORT int nvrtcGetCUBINSize(Program *p, size_t *bytes) {
	*bytes = p->image.size();
	return p->image.empty() ? invalid_program : ok;
}
EXPORT int nvrtcGetCUBIN(Program *p, char *image) { return get(image, p->image, false); }
EXPORT int nvrtcGetPTXSize(Program *p, size_t *bytes) { return nvrtcGetCUBINSize(p, bytes); }
EXPORT int nvrtcGetPTX(Program *p, char *image) { return nvrtcGetCUBIN(p, image); }
