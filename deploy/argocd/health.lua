-- Health of Beamline's Extension and RoutingPolicy in Argo CD; docs/gitops.md says where it goes.
-- One script for both kinds: they have the same conditions. The first rule that applies decides.
local hs = {}

local function condition(name)
  if obj.status ~= nil and obj.status.conditions ~= nil then
    for _, found in ipairs(obj.status.conditions) do
      if found.type == name then
        return found
      end
    end
  end
  return nil
end

local function is(status, message)
  hs.status = status
  hs.message = message
  return hs
end

if obj.metadata.deletionTimestamp ~= nil then
  return is("Progressing", "It is being deleted.")
end
if obj.spec ~= nil and obj.spec.suspend == true then
  return is("Suspended", "spec.suspend is true: nothing is changed until it is false.")
end
local ready = condition("Ready")
if ready == nil then
  return is("Progressing", "The operator has not seen it yet.")
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return is("Progressing", "The operator has not seen this generation yet.")
end
local stalled = condition("Stalled")
if stalled ~= nil and stalled.status == "True" then
  return is("Degraded", stalled.message)
end
if ready.reason == "CanaryPaused" then
  return is("Suspended", ready.message)
end
if ready.status == "True" then
  return is("Healthy", ready.message)
end
local reconciling = condition("Reconciling")
if ready.status == "Unknown" or (reconciling ~= nil and reconciling.status == "True") then
  return is("Progressing", ready.message)
end
return is("Degraded", ready.message)
