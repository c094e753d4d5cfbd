/* A small libnvidia-ml.so.1 for tests: plays scripted power traces with an exact integral and injects faults.
 *
 *     gcc -O2 -fPIC -shared -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 fake_nvml.c -lm
 *
 * No vendor header is needed: the few structures are laid out by hand, and the real pynvml checks them by use.
 * Time is virtual (fakeNvmlClock) or the system's. Until fakeNvmlEnable, or FAKE_NVML=1, nvmlInit says that there is no
 * library, so that a process that has it loaded sees no GPU by accident.
 *
 * The energy counter updates every update_us. Update k is computed for the moment k x update_us and becomes visible up to
 * 2 x jitter_us later, by a hash of k: what a reader sees is late and irregular, as on a card. Power readings are the
 * mean over the avg_us before the same update; avg_us 0 is the power at that moment.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int Ret;
typedef unsigned int u32;
typedef unsigned long long u64;
enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, NO_LIBRARY = 12 };
enum { MOST_DEVICES = 4, MOST_POINTS = 1 << 20, MOST_FAULTS = 32 };

typedef struct {
  u32 fieldId, scopeId;
  int64_t timestamp, latencyUsec;
  int valueType;
  Ret nvmlReturn;
  union { double d; u32 u; u64 ull; } value;
} Field;

typedef struct { u32 pid; u64 used; u32 gpuInstance, computeInstance; } Process;

typedef struct { /* power w from t_us on; e_mj is the exact energy up to t_us */
  double t_us, w, e_mj;
} Point;

typedef struct Device {
  int index, is_slice;
  Point *points;
  int n;
} *Dev;

static struct Device devices[MOST_DEVICES], slice = {0, 1, NULL, 0};
static int inited, enabled;
static int64_t virtual_us = -1;

static struct { const char *name; double value, initial; } settings[] = {
    {"update_us", 0, 100000}, {"jitter_us", 0, 0},      {"avg_us", 0, 0},          {"base_mj", 0, 1000000},
    {"wrap_mj", 0, 0},        {"devices", 0, 1},        {"arch", 0, 9},            {"mig", 0, 0},
    {"scope", 0, 0},          {"temp_c", 0, 45},        {"sm_mhz", 0, 1980},       {"memory_mhz", 0, 2619},
    {"limit_mw", 0, 700000},  {"util", 0, 0},           {"frozen_us", 0, -1},      {"reset_us", 0, -1},
    {"fields", 0, 1},         {"pid", 0, 0},            {"pid2", 0, 0},            {"sw_cap_share", 0, 0},
    {"sw_thermal_share", 0, 0}, {"hw_thermal_share", 0, 0}, {"brake_share", 0, 0}, {"sm_step_us", 0, -1},
    {"sm_step_mhz", 0, 0},    {"seed", 0, 1},           {"instant_scale", 0, 1},
};
enum { UPDATE, JITTER, AVG, BASE, WRAP, DEVICES, ARCH, MIG, SCOPE, TEMP, SM, MEMORY, LIMIT, UTIL, FROZEN, RESET, FIELDS,
       PID, PID2, SW_CAP, SW_THERMAL, HW_THERMAL, BRAKE, SM_STEP, SM_STEP_MHZ, SEED, INSTANT_SCALE, N_SETTINGS };
#define S(k) (settings[k].value)

static char card_name[96];
static struct { char function[64]; Ret code; double from_us; } faults[MOST_FAULTS];
static int n_faults;

static double now_us(void) {
  if (virtual_us >= 0) return (double)virtual_us;
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e6 * (double)t.tv_sec + (double)t.tv_nsec / 1e3;
}

static double exact_mj(Dev d, double t_us) {
  int low = 0, high = d->n - 1;
  if (d->n == 0 || t_us <= d->points[0].t_us) return 0;
  while (low < high) {
    int middle = (low + high + 1) / 2;
    if (d->points[middle].t_us <= t_us) low = middle; else high = middle - 1;
  }
  return d->points[low].e_mj + (t_us - d->points[low].t_us) * d->points[low].w / 1e3;
}

static double uniform(u64 k) { /* splitmix64, to [0, 1) */
  u64 z = k + (u64)S(SEED) * 0x632BE59BD9B4E019ULL + 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

static double update_us(double t_us) { /* moment that the newest visible update speaks of */
  double k = floor(t_us / S(UPDATE));
  if (t_us < k * S(UPDATE) + 2.0 * S(JITTER) * uniform((u64)k)) k -= 1;
  return k * S(UPDATE);
}

static u64 counter_mj(Dev d) {
  double t = now_us(), e;
  if (S(FROZEN) >= 0 && t > S(FROZEN)) t = S(FROZEN);
  t = update_us(t);
  e = S(BASE) + exact_mj(d, t);
  if (S(RESET) >= 0 && t >= S(RESET)) e = exact_mj(d, t) - exact_mj(d, S(RESET));
  if (S(WRAP) > 0) e = fmod(e, S(WRAP));
  return (u64)e;
}

static u32 power_mw(Dev d, double average_us) {
  double t = now_us(), w = average_us > 0 ? average_us : 1;
  if (S(FROZEN) >= 0 && t > S(FROZEN)) t = S(FROZEN);
  t = update_us(t);
  return (u32)(S(INSTANT_SCALE) * (exact_mj(d, t) - exact_mj(d, t - w)) / w * 1e6 + 0.5);
}

static Ret fault(const char *function) {
  for (int i = 0; i < n_faults; i++)
    if (!strcmp(faults[i].function, function) && now_us() >= faults[i].from_us) return faults[i].code;
  return OK;
}

/* Controls, called through ctypes. */
void fakeNvmlReset(void) {
  for (int i = 0; i < N_SETTINGS; i++) S(i) = settings[i].initial;
  for (int i = 0; i < MOST_DEVICES; i++) { devices[i].index = i; devices[i].n = 0; }
  strcpy(card_name, "NVIDIA H100 80GB HBM3");
  n_faults = inited = 0;
}
void fakeNvmlEnable(int on) { enabled = on; }
int fakeNvmlInited(void) { return inited; }
void fakeNvmlClock(int64_t t_us) { virtual_us = t_us; }
int fakeNvmlSet(const char *name, double value) {
  for (int i = 0; i < N_SETTINGS; i++) if (!strcmp(settings[i].name, name)) { S(i) = value; return 0; }
  return 1;
}
void fakeNvmlName(const char *name) { snprintf(card_name, sizeof card_name, "%s", name); }
int fakeNvmlFault(const char *function, int code, double from_us) {
  if (n_faults == MOST_FAULTS) return 1;
  snprintf(faults[n_faults].function, sizeof faults[0].function, "%s", function);
  faults[n_faults].code = code;
  faults[n_faults++].from_us = from_us;
  return 0;
}
/* Power w from t_us on, also in the future. A point at or before the last one replaces what comes after it. */
int fakeNvmlPower(int i, double t_us, double w) {
  Dev d = &devices[i];
  double e;
  if (!d->points && !(d->points = malloc(sizeof(Point) * MOST_POINTS))) return 1;
  e = exact_mj(d, t_us);
  while (d->n && d->points[d->n - 1].t_us >= t_us) d->n--;
  if (d->n == MOST_POINTS) return 1;
  d->points[d->n].t_us = t_us;
  d->points[d->n].w = w;
  d->points[d->n++].e_mj = e;
  return 0;
}
double fakeNvmlExactMj(int i, double t_us) { return exact_mj(&devices[i], t_us); }
void fakeNvmlForget(int i) { devices[i].n = 0; }

__attribute__((constructor)) static void start(void) {
  const char *on = getenv("FAKE_NVML");
  fakeNvmlReset();
  if (on && *on == '1') {
    enabled = 1;
    fakeNvmlPower(0, 0, 100);
  }
}

#define FAULTY do { Ret r_ = fault(__func__); if (r_) return r_; } while (0)
#define CHECK(p) do { if (!inited) return UNINITIALIZED; FAULTY; if (!(p)) return INVALID; } while (0)
#define TEXT(out, n, s) do { snprintf(out, n, "%s", s); return OK; } while (0)
#define NUMBER(function, expression) Ret function(Dev d, u32 *out) { CHECK(d); *out = (u32)(expression); return OK; }

Ret nvmlInitWithFlags(u32 flags) {
  (void)flags;
  if (!enabled) return NO_LIBRARY;
  FAULTY;
  inited++;
  return OK;
}
Ret nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
Ret nvmlShutdown(void) { if (!inited) return UNINITIALIZED; inited--; return OK; }
const char *nvmlErrorString(Ret r) { static char text[32]; snprintf(text, sizeof text, "fake NVML error %d", r); return text; }
Ret nvmlSystemGetDriverVersion(char *v, u32 n) { CHECK(v); TEXT(v, n, "580.00.fake"); }
Ret nvmlSystemGetNVMLVersion(char *v, u32 n) { CHECK(v); TEXT(v, n, "13.580.00.fake"); }
Ret nvmlSystemGetCudaDriverVersion_v2(int *v) { CHECK(v); *v = 13000; return OK; }
Ret nvmlDeviceGetCount_v2(u32 *n) { CHECK(n); *n = (u32)S(DEVICES); return OK; }
Ret nvmlDeviceGetHandleByIndex_v2(u32 i, Dev *d) { CHECK(d); if (i >= (u32)S(DEVICES)) return INVALID; *d = &devices[i]; return OK; }
Ret nvmlDeviceGetIndex(Dev d, u32 *i) { CHECK(d); *i = (u32)d->index; return OK; }
Ret nvmlDeviceGetName(Dev d, char *v, u32 n) { CHECK(d); TEXT(v, n, card_name); }
/* Indices and UUIDs run against each other: a reader that maps by index takes the wrong card. */
Ret nvmlDeviceGetUUID(Dev d, char *v, u32 n) {
  CHECK(d);
  snprintf(v, n, "GPU-fa4e0000-0000-4000-8000-%012d", (int)S(DEVICES) - 1 - d->index);
  return OK;
}
Ret nvmlDeviceGetHandleByUUID(const char *uuid, Dev *d) {
  CHECK(d);
  if (S(MIG) && !strcmp(uuid, "MIG-51ce0000-0000-4000-8000-000000000000")) { *d = &slice; return OK; }
  return NOT_FOUND;
}
Ret nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Dev d, Dev *out) { CHECK(d); if (!d->is_slice) return INVALID; *out = &devices[0]; return OK; }
Ret nvmlDeviceGetMigMode(Dev d, u32 *current, u32 *pending) { CHECK(d); *current = *pending = (u32)S(MIG); return OK; }
Ret nvmlDeviceGetTotalEnergyConsumption(Dev d, u64 *e) { CHECK(d); *e = counter_mj(d); return OK; }
Ret nvmlDeviceGetTemperatureV(Dev d, void *s) { CHECK(d); ((int *)s)[2] = (int)S(TEMP); return OK; }
Ret nvmlDeviceGetTemperature(Dev d, int sensor, u32 *t) { (void)sensor; CHECK(d); *t = (u32)S(TEMP); return OK; }
Ret nvmlDeviceGetClockInfo(Dev d, int type, u32 *mhz) {
  CHECK(d);
  *mhz = (u32)(type == 2 ? S(MEMORY) : S(SM_STEP) >= 0 && now_us() >= S(SM_STEP) ? S(SM_STEP_MHZ) : S(SM));
  return OK;
}
Ret nvmlDeviceGetUtilizationRates(Dev d, u32 *u) { CHECK(d); u[0] = (u32)S(UTIL); u[1] = 0; return OK; }
Ret nvmlDeviceGetComputeRunningProcesses_v3(Dev d, u32 *n, Process *p) {
  double pids[2] = {S(PID), S(PID2)};
  u32 room, k = 0, have = (pids[0] > 0) + (pids[1] > 0);
  CHECK(d);
  room = *n;
  *n = have;
  if (room < have) return TOO_SMALL;
  for (int i = 0; i < 2; i++) if (pids[i] > 0) { memset(&p[k], 0, sizeof p[k]); p[k++].pid = (u32)pids[i]; }
  return OK;
}
Ret nvmlDeviceGetC2cModeInfoV(Dev d, void *s) { (void)s; CHECK(d); return NOT_SUPPORTED; }
Ret nvmlDeviceGetCudaComputeCapability(Dev d, int *major, int *minor) { CHECK(d); *major = 9; *minor = 0; return OK; }
NUMBER(nvmlDeviceGetPowerUsage, power_mw(d, S(AVG)))
NUMBER(nvmlDeviceGetArchitecture, S(ARCH))
NUMBER(nvmlDeviceGetEnforcedPowerLimit, S(LIMIT))
NUMBER(nvmlDeviceGetPowerManagementLimit, S(LIMIT))
NUMBER(nvmlDeviceGetPersistenceMode, 1)

static double limited_ns(double share) { return now_us() * 1e3 * share; }

Ret nvmlDeviceGetFieldValues(Dev d, int n, Field *fields) {
  CHECK(d);
  if (!S(FIELDS)) return NOT_SUPPORTED;
  for (int k = 0; k < n; k++) {
    Field *f = fields + k;
    char name[32];
    snprintf(name, sizeof name, "field%u", f->fieldId);
    f->timestamp = (int64_t)now_us();
    f->latencyUsec = 5;
    f->value.ull = 0;
    f->valueType = 3;
    f->nvmlReturn = fault(name);
    if (f->nvmlReturn != OK) continue;
    switch (f->fieldId) {
      case 83: f->value.ull = counter_mj(d); break;
      case 185: case 186:
        if (f->scopeId != (u32)S(SCOPE)) { f->nvmlReturn = NOT_SUPPORTED; break; }
        f->valueType = 1;
        f->value.u = power_mw(d, f->fieldId == 185 ? 1e6 : S(AVG));
        break;
      case 74: f->value.ull = (u64)limited_ns(S(SW_CAP)); break;
      case 269: f->value.ull = (u64)limited_ns(S(SW_THERMAL)); break;
      case 270: f->value.ull = (u64)limited_ns(S(HW_THERMAL)); break;
      case 271: f->value.ull = (u64)limited_ns(S(BRAKE)); break;
      default: f->nvmlReturn = NOT_SUPPORTED;
    }
  }
  return OK;
}
