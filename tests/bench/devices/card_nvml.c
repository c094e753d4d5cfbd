/* A libnvidia-ml.so.1 of two cards for tests of NvmlCard: cc -fPIC -shared -Wl,-soname,libnvidia-ml.so.1
 * Settings are environment variables, read at each call, so that a test changes them as it goes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned u32;
typedef unsigned long long u64;
typedef struct card { int index; } *Card;
typedef struct { u32 id, scope; int64_t at, latency; int type, code; union { u64 ull; double d; } value; } Field;
typedef struct { u32 pid; u64 memory; u32 gpu_instance, compute_instance; } Process;
typedef struct { u64 reference, violation; } Violation;
static struct card cards[2] = {{0}, {1}};
static double setting(const char *name, double otherwise) { const char *s = getenv(name); return s && *s ? atof(s) : otherwise; }
#define LOST() do { if (setting("CARD_LOST", 0)) return 15; } while (0)
int nvmlInitWithFlags(u32 f) { (void)f; return (int)setting("CARD_INIT", 0); }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { static char t[32]; snprintf(t, sizeof t, "code %d", code); return t; }
int nvmlSystemGetDriverVersion(char *v, u32 n) { snprintf(v, n, "580.00"); return 0; }
int nvmlDeviceGetCount_v2(u32 *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(u32 i, Card *c) { *c = &cards[i]; return 0; }
/* Indices run against the UUIDs: who takes the card by index takes the wrong one. */
int nvmlDeviceGetUUID(Card c, char *v, u32 n) { snprintf(v, n, "GPU-00000000-0000-4000-8000-00000000000%d", 1 - c->index); return 0; }
int nvmlDeviceGetClockInfo(Card c, int type, u32 *o) { LOST(); *o = type == 2 ? 2619 : 1000u + 100u * (u32)c->index; return 0; }
int nvmlDeviceGetMaxClockInfo(Card c, int type, u32 *o) { (void)c; *o = type == 2 ? 2619 : 1980; return 0; }
int nvmlDeviceGetPowerUsage(Card c, u32 *o) { (void)c; LOST(); *o = 450000; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(Card c, u32 *o) { (void)c; *o = 650000; return 0; }
int nvmlDeviceGetPowerManagementDefaultLimit(Card c, u32 *o) { (void)c; *o = 700000; return 0; }
int nvmlDeviceGetEccMode(Card c, int *a, int *b) { (void)c; *a = *b = 1; return 0; }
int nvmlDeviceGetMigMode(Card c, u32 *a, u32 *b) { (void)c; *a = *b = 0; return 0; }
int nvmlDeviceGetTemperature(Card c, int s, u32 *t) { (void)c; (void)s; *t = 61; return 0; }
int nvmlDeviceGetFieldValues(Card c, int n, Field *f) {
  (void)c;
  LOST();
  for (int i = 0; i < n; i++) {
    f[i].type = 3;
    f[i].code = setting("CARD_FIELDS", 1) && (f[i].id == 74 || f[i].id == 75 || f[i].id == 269) ? 0 : 3;
    f[i].value.ull = (u64)setting(f[i].id == 74 ? "CARD_POWER_NS" : "CARD_HEAT_NS", 0);
  }
  return 0;
}
int nvmlDeviceGetViolationStatus(Card c, int policy, Violation *v) {
  (void)c;
  if (policy > 1) return 3;
  v->reference = 0;
  v->violation = (u64)setting(policy == 0 ? "CARD_POWER_NS" : "CARD_HEAT_NS", 0);
  return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(Card c, u32 *n, Process *p) {
  u32 pids[2] = {(u32)setting("CARD_PID", 0), (u32)setting("CARD_PID2", 0)}, count = 0;
  (void)c;
  for (int i = 0; i < 2; i++) count += pids[i] != 0;
  if (*n < count) { *n = count; return 7; }
  *n = 0;
  for (int i = 0; i < 2; i++) if (pids[i]) { memset(&p[*n], 0, sizeof *p); p[(*n)++].pid = pids[i]; }
  return 0;
}
