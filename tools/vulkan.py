#!/usr/bin/env python3
"""Lists the Vulkan devices of this machine as JSON, by the loader itself: nothing else is needed.

A driver that crashes takes its process along, so others run this as a program (see `devices`).
"""

import ctypes
import json
import platform
import subprocess
import sys

from common import Fail, install

# As Vulkan numbers them, and in the order in which one would choose.
KINDS = ["other", "integrated", "discrete", "virtual", "cpu"]
BEST = ["discrete", "integrated", "virtual", "other", "cpu"]


class InstanceCreateInfo(ctypes.Structure):
    """VkInstanceCreateInfo of vulkan_core.h."""
    _fields_ = [
        ("sType", ctypes.c_uint32), ("pNext", ctypes.c_void_p), ("flags", ctypes.c_uint32),
        ("pApplicationInfo", ctypes.c_void_p), ("enabledLayerCount", ctypes.c_uint32),
        ("ppEnabledLayerNames", ctypes.c_void_p), ("enabledExtensionCount", ctypes.c_uint32),
        ("ppEnabledExtensionNames", ctypes.c_void_p),
    ]


class Properties(ctypes.Structure):
    """The beginning of VkPhysicalDeviceProperties, and room for the rest of it."""
    _fields_ = [
        ("apiVersion", ctypes.c_uint32), ("driverVersion", ctypes.c_uint32),
        ("vendorID", ctypes.c_uint32), ("deviceID", ctypes.c_uint32),
        ("deviceType", ctypes.c_uint32), ("deviceName", ctypes.c_char * 256),
        ("rest", ctypes.c_uint64 * 512),
    ]


def probe():
    """Asks the loader for its devices."""
    loader = ctypes.CDLL("libvulkan.so.1")
    info = InstanceCreateInfo(sType=1)
    instance = ctypes.c_void_p()
    if loader.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance)) != 0:
        return []
    count = ctypes.c_uint32(64)
    handles = (ctypes.c_void_p * 64)()
    # 5 says that there are more than fit.
    if loader.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles) not in (0, 5):
        return []
    found = []
    for handle in handles[:count.value]:
        got = Properties()
        loader.vkGetPhysicalDeviceProperties(ctypes.c_void_p(handle), ctypes.byref(got))
        found.append({
            "name": got.deviceName.decode(errors="replace"),
            "kind": KINDS[got.deviceType] if got.deviceType < len(KINDS) else "other",
            "vulkan": f"{got.apiVersion >> 22 & 0x7f}.{got.apiVersion >> 12 & 0x3ff}",
        })
    return found


def devices(environment=None, runner=()):
    """The devices that programs see with this environment and runner; none where that fails."""
    command = [*runner, sys.executable, __file__]
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=60)
        return json.loads(done.stdout) if done.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise Fail(f"the Vulkan drivers cannot be asked: {error}") from None


def own():
    """The machine's own devices, the best first; a Linux without one gets Mesa's software driver.

    macOS and Windows bring their drivers along and have no loader to ask: none is listed there.
    """
    if platform.system() != "Linux":
        return []
    found = devices()
    if not found:
        install("vulkan", "there is no Vulkan driver")
        found = devices()
    if not found:
        raise Fail("a Vulkan driver was installed and no device appears: `vulkaninfo --summary` may "
                   "say why")
    return sorted(found, key=lambda device: BEST.index(device["kind"]))


if __name__ == "__main__":
    try:
        print(json.dumps(probe()))
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
