// What Go calls. Every function that can fail returns a status to be read with
// sl_status, or NULL.
#ifndef SLUICE_ORT_SHIM_H
#define SLUICE_ORT_SHIM_H

#include "api.h"

enum { SL_MAX_RANK = 16 };

typedef struct {
  void *const *fn;
  OrtEnv *env;
  OrtMemoryInfo *cpu;
  OrtAllocator *heap;
  const char *version;
} sl_lib;

typedef struct {
  char *name;
  int kind;
  int elem;
  int64_t rank;
  int64_t dims[SL_MAX_RANK];
  char *symbols[SL_MAX_RANK];
} sl_info;

typedef struct {
  OrtSession *ort;
  size_t inputs, outputs;
  sl_info *info; // inputs, then outputs
} sl_session;

typedef struct {
  void *data;
  size_t bytes;
  size_t count;
  int64_t rank;
  int64_t dims[SL_MAX_RANK];
  int elem;
} sl_tensor;

// One run: inputs are filled in by the caller; outputs alias values, or text for strings.
typedef struct {
  OrtRunOptions *options;
  size_t inputs, outputs;
  sl_tensor *in, *out;
  const char **in_names, **out_names;
  OrtValue **in_values, **out_values;
  void **text;
} sl_run;

typedef struct {
  int intra_threads, inter_threads;
  int no_arena;
  int optimise; // 0: the file is optimised already
  const char *save_optimised;
} sl_options;

// sl_open returns a text to free if the library cannot be used.
char *sl_open(const char *path, sl_lib **out);
void sl_close(sl_lib *lib);
int sl_providers(sl_lib *lib, char ***names);
void sl_providers_free(sl_lib *lib, char **names, int n);

// sl_status gives a text to free and releases the status.
char *sl_status(sl_lib *lib, OrtStatus *status, int *code);

OrtStatus *sl_options_new(sl_lib *lib, const sl_options *o, OrtSessionOptions **out);
void sl_options_free(sl_lib *lib, OrtSessionOptions *o);
OrtStatus *sl_append(sl_lib *lib, OrtSessionOptions *o, int how, const char *name, const char *const *keys,
                     const char *const *values, size_t n);
enum { SL_APPEND_NAMED, SL_APPEND_CUDA, SL_APPEND_TENSORRT, SL_APPEND_OPENVINO };

OrtStatus *sl_session_new(sl_lib *lib, const char *path, OrtSessionOptions *o, sl_session **out);
void sl_session_free(sl_lib *lib, sl_session *s);

OrtStatus *sl_run_new(sl_lib *lib, sl_session *s, sl_run **out);
void sl_run_free(sl_lib *lib, sl_run *r);
// sl_run_exec runs the model for r->outputs names; sl_run_clear frees what it made.
OrtStatus *sl_run_exec(sl_lib *lib, sl_session *s, sl_run *r);
void sl_run_clear(sl_lib *lib, sl_run *r);
void sl_run_terminate(sl_lib *lib, sl_run *r, int on);

// sl_trim gives freed memory back to the system where the C library can.
void sl_trim(void);

#endif
