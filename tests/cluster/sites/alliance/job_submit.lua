-- slurmctld asks this file about each job: an account is needed, and a type for each GPU.

function slurm_job_submit(job, partitions, user)
   if job.account == nil then
      slurm.log_user("You are associated with multiple allocations. Please specify one of the " ..
                     "following accounts to submit this job: def-prof, rrg-prof. " ..
                     "Use the parameter --account=desired_account when submitting your job")
      return slurm.ERROR
   end
   for _, asked in pairs({job.tres_per_job, job.tres_per_node, job.tres_per_task}) do
      for gpus in asked:gmatch("gpu[^,]*") do
         if not gpus:find("h100") and not gpus:find("a100") then
            slurm.log_user("Please name the type of the GPU: --gpus=h100:1 or --gpus=a100:1")
            return slurm.ERROR
         end
      end
   end
   return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, user)
   return slurm.SUCCESS
end
